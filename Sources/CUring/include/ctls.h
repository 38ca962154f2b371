// OpenSSL 3.0, and its macros as functions.
#pragma once
// System headers come from there, so that their names have one owner whichever modules a Swift file imports.
#include "curing.h"
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

static inline int rw_tls_least_version(SSL_CTX *context, int version) {
  return SSL_CTX_set_min_proto_version(context, version);
}

// Puts ChaCha20 first for clients that do.
static inline void rw_tls_prefer_chacha_with_client(SSL_CTX *context) {
  SSL_CTX_set_options(context, SSL_OP_PRIORITIZE_CHACHA);
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

// ---- Sessions: TLS over memory that the caller names for the length of one call.

// What OpenSSL may read and where it may write during a call. What it wants beyond is answered with "try again".
struct rw_tls_io {
  const uint8_t *input;
  size_t input_left;
  uint8_t *output;
  size_t output_room;
  size_t output_used;
};

enum rw_tls_result {
  RW_TLS_DONE,
  RW_TLS_WANT_INPUT,
  RW_TLS_WANT_OUTPUT,  // call again with the same arguments and more room
  RW_TLS_CLOSED,       // close_notify
  RW_TLS_FAILED,       // the thread's error queue says why
};

// Gives the session its BIO. False if memory is short.
bool rw_tls_attach(SSL *tls);
enum rw_tls_result rw_tls_handshake(SSL *tls, struct rw_tls_io *io);
enum rw_tls_result rw_tls_read(SSL *tls, struct rw_tls_io *io, void *plain, size_t room, size_t *got);
enum rw_tls_result rw_tls_write(SSL *tls, struct rw_tls_io *io, const void *plain, size_t count, size_t *taken);
enum rw_tls_result rw_tls_close(SSL *tls, struct rw_tls_io *io);

// ---- Contexts.

// What both sides have in common. `most` is 0 for the newest version there is.
bool rw_tls_prepare(SSL_CTX *context, int least, int most);
// Server: own order of cipher suites, tickets, and h2 or http/1.1 by ALPN.
bool rw_tls_prepare_server(SSL_CTX *context);
// Server: demands certificates. `revoked` (may be null) must outlive the context's sessions.
void rw_tls_demand_certificates(SSL_CTX *context, STACK_OF(X509_CRL) *revoked);

// Client: the server's certificate has to lead to a trusted authority.
void rw_tls_check_server(SSL_CTX *context);
// The reason (library ERR_LIB_USER) of the entry in the error queue that says whose certificate was refused.
enum { RW_TLS_REFUSED = 100 };

STACK_OF(X509_CRL) *rw_tls_crl_list(void);
bool rw_tls_crl_list_add(STACK_OF(X509_CRL) *list, X509_CRL *crl);
void rw_tls_crl_list_free(STACK_OF(X509_CRL) *list);

bool rw_tls_add_chain(SSL_CTX *context, X509 *certificate);

// PEM without ever asking the terminal for a password.
X509 *rw_tls_pem_certificate(BIO *pem);
EVP_PKEY *rw_tls_pem_key(BIO *pem);
X509_CRL *rw_tls_pem_crl(BIO *pem);
// True if the queue's last error only says that there is no (further) PEM block, which empties it.
bool rw_tls_pem_ended(void);

// Seconds since 1970; false if the time cannot be read.
bool rw_tls_seconds(const ASN1_TIME *time, int64_t *seconds);

// ---- A certificate of our own.

EVP_PKEY *rw_tls_new_key(void);
// `names` as in OpenSSL's configuration: "DNS:localhost,IP:::1". Times are seconds since 1970.
X509 *rw_tls_self_signed(EVP_PKEY *key, const char *names, int64_t from, int64_t until);
