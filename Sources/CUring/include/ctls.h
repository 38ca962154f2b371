// OpenSSL 3.0, and its macros as functions.
#pragma once
// System headers come from there, so that their names have one owner whichever modules a Swift file imports.
#include "curing.h"
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

static inline int rw_tls_least_version_1_2(SSL_CTX *context) {
  return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
}

static inline int rw_tls_server_name(SSL *tls, const char *name) {
  return (int)SSL_set_tlsext_host_name(tls, name);
}

// A memory BIO that says "try again" when it is empty, instead of "the end".
static inline BIO *rw_tls_memory(void) {
  BIO *memory = BIO_new(BIO_s_mem());
  if (memory) BIO_set_mem_eof_return(memory, -1);
  return memory;
}

static inline size_t rw_tls_pending(BIO *memory) { return BIO_ctrl_pending(memory); }
