#include "ctls.h"

#include <openssl/ec.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

// ---- The BIO: moves bytes between OpenSSL and the memory of the running call. It has no memory of its own.

static int bio_read(BIO *bio, char *room, int size) {
  struct rw_tls_io *io = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (size <= 0) return 0;
  if (!io || io->input_left == 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  size_t count = io->input_left < (size_t)size ? io->input_left : (size_t)size;
  memcpy(room, io->input, count);
  io->input += count;
  io->input_left -= count;
  return (int)count;
}

static int bio_write(BIO *bio, const char *bytes, int size) {
  struct rw_tls_io *io = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (size <= 0) return 0;
  size_t room = io ? io->output_room - io->output_used : 0;
  if (room == 0) {
    BIO_set_retry_write(bio);
    return -1;
  }
  size_t count = room < (size_t)size ? room : (size_t)size;
  memcpy(io->output + io->output_used, bytes, count);
  io->output_used += count;
  return (int)count;
}

static long bio_control(BIO *bio, int command, long number, void *pointer) {
  (void)bio, (void)number, (void)pointer;
  return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP;
}

static int bio_create(BIO *bio) {
  BIO_set_init(bio, 1);
  return 1;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void) {
  int index = BIO_get_new_index();
  BIO_METHOD *made = index < 0 ? NULL : BIO_meth_new(index | BIO_TYPE_SOURCE_SINK, "call memory");
  if (!made) return;
  if (BIO_meth_set_read(made, bio_read) && BIO_meth_set_write(made, bio_write) &&
      BIO_meth_set_ctrl(made, bio_control) && BIO_meth_set_create(made, bio_create))
    bio_method = made;
  else
    BIO_meth_free(made);
}

bool rw_tls_attach(SSL *tls) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_bio_method);
  BIO *bio = bio_method ? BIO_new(bio_method) : NULL;
  if (!bio) return false;
  SSL_set_bio(tls, bio, bio);
  return true;
}

// ---- Calls. Each lends its memory to the BIO and takes it back.

static void begin(SSL *tls, struct rw_tls_io *io) {
  ERR_clear_error();
  BIO_set_data(SSL_get_rbio(tls), io);
}

static enum rw_tls_result end(SSL *tls, int result) {
  int cause = SSL_get_error(tls, result);
  BIO_set_data(SSL_get_rbio(tls), NULL);
  switch (cause) {
    case SSL_ERROR_NONE: return RW_TLS_DONE;
    case SSL_ERROR_WANT_READ: return RW_TLS_WANT_INPUT;
    case SSL_ERROR_WANT_WRITE: return RW_TLS_WANT_OUTPUT;
    case SSL_ERROR_ZERO_RETURN: return RW_TLS_CLOSED;
    default: return RW_TLS_FAILED;
  }
}

enum rw_tls_result rw_tls_handshake(SSL *tls, struct rw_tls_io *io) {
  begin(tls, io);
  return end(tls, SSL_do_handshake(tls));
}

enum rw_tls_result rw_tls_read(SSL *tls, struct rw_tls_io *io, void *plain, size_t room, size_t *got) {
  begin(tls, io);
  *got = 0;
  return end(tls, SSL_read_ex(tls, plain, room, got));
}

enum rw_tls_result rw_tls_write(SSL *tls, struct rw_tls_io *io, const void *plain, size_t count, size_t *taken) {
  begin(tls, io);
  *taken = 0;
  return end(tls, SSL_write_ex(tls, plain, count, taken));
}

enum rw_tls_result rw_tls_close(SSL *tls, struct rw_tls_io *io) {
  begin(tls, io);
  int result = SSL_shutdown(tls);
  // 0: ours is on its way, the other end's has not come. Nobody waits for that.
  if (result == 0) result = 1;
  return end(tls, result);
}

// ---- Contexts.

bool rw_tls_prepare(SSL_CTX *context, int least, int most) {
  // An endless stream of renegotiations costs the peer nothing; compression leaks (CRIME).
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // Idle sessions keep no record buffers. Without "no auto chain" each handshake would search the trusted authorities
  // for a chain and send them along.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
  // All input of a call goes into the record buffer at once: one buffer a call, not one a record.
  SSL_CTX_set_read_ahead(context, 1);
  // Whatever is in the file of authorities is trusted, as in Go, whether it signed itself or not.
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  return SSL_CTX_set_min_proto_version(context, least) == 1 && SSL_CTX_set_max_proto_version(context, most) == 1;
}

// True if `name` is among the length-prefixed names that a client offers (RFC 7301 section 3.1).
static const unsigned char *find_protocol(const unsigned char *offers, unsigned count, const char *name) {
  size_t length = strlen(name);
  for (unsigned at = 0; at < count; at += 1u + offers[at]) {
    if (offers[at] == length && count - at > length && memcmp(offers + at + 1, name, length) == 0)
      return offers + at + 1;
  }
  return NULL;
}

static int choose_protocol(SSL *tls, const unsigned char **chosen, unsigned char *length, const unsigned char *offers,
                           unsigned count, void *unused) {
  (void)tls, (void)unused;
  const char *const ours[] = {"h2", "http/1.1"};
  for (int i = 0; i < 2; i++) {
    const unsigned char *found = find_protocol(offers, count, ours[i]);
    if (!found) continue;
    *chosen = found;
    *length = (unsigned char)strlen(ours[i]);
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

// A resumed session is not verified again. Its certificate may have expired since: then all is done anew, as Go does.
static SSL_TICKET_RETURN judge_ticket(SSL *tls, SSL_SESSION *session, const unsigned char *key_name, size_t length,
                                      SSL_TICKET_STATUS status, void *unused) {
  (void)key_name, (void)length, (void)unused;
  bool good = status == SSL_TICKET_SUCCESS || status == SSL_TICKET_SUCCESS_RENEW;
  if (!good) return SSL_TICKET_RETURN_IGNORE_RENEW;
  X509 *peer = SSL_SESSION_get0_peer(session);
  bool demanded = SSL_get_verify_mode(tls) & SSL_VERIFY_PEER;
  if (demanded && (!peer || X509_cmp_current_time(X509_get0_notAfter(peer)) <= 0))
    return SSL_TICKET_RETURN_IGNORE_RENEW;
  return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

bool rw_tls_prepare_server(SSL_CTX *context) {
  static const unsigned char name[] = "ringway";
  SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
  // Ticket keys are the context's own and random: a context made after a reload takes no older tickets.
  return SSL_CTX_set_session_id_context(context, name, sizeof name - 1) == 1 &&
         SSL_CTX_set_num_tickets(context, 1) == 1 &&
         SSL_CTX_set_session_ticket_cb(context, NULL, judge_ticket, NULL) == 1;
}

// etcd's own check (client/pkg/transport/listener_tls.go): a listed serial number, whoever issued it.
static bool is_listed(STACK_OF(X509_CRL) *lists, X509 *certificate) {
  for (int i = 0; certificate && i < sk_X509_CRL_num(lists); i++) {
    X509_REVOKED *entry = NULL;
    if (X509_CRL_get0_by_serial(sk_X509_CRL_value(lists, i), &entry, X509_get0_serialNumber(certificate)) != 0)
      return true;
  }
  return false;
}

// Leaves in the error queue whose certificate was refused: the verdict alone would not tell an operator.
static int refuse(X509 *certificate) {
  char serial[2 * 20 + 1] = "", subject[160] = "";
  const ASN1_INTEGER *number = certificate ? X509_get0_serialNumber(certificate) : NULL;
  for (int i = 0; number && i < ASN1_STRING_length(number) && i < 20; i++)
    snprintf(serial + 2 * i, 3, "%02x", ASN1_STRING_get0_data(number)[i]);
  if (certificate) X509_NAME_oneline(X509_get_subject_name(certificate), subject, sizeof subject);
  // What the search for this verdict left behind would come first.
  ERR_clear_error();
  ERR_raise_data(ERR_LIB_USER, RW_TLS_REFUSED, "serial %s, subject %s", serial, subject);
  return 0;
}

static int judge_failure(X509_STORE_CTX *verification) {
  // As with etcd a list counts for whom it names: an authority without a list, or a stale one, locks nobody out. A list
  // whose signature is wrong does.
  switch (X509_STORE_CTX_get_error(verification)) {
    case X509_V_ERR_UNABLE_TO_GET_CRL:
    case X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER:
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_CRL_NOT_YET_VALID:
    case X509_V_ERR_KEYUSAGE_NO_CRL_SIGN:
    case X509_V_ERR_DIFFERENT_CRL_SCOPE:
    case X509_V_ERR_UNHANDLED_CRITICAL_CRL_EXTENSION: X509_STORE_CTX_set_error(verification, X509_V_OK); return 1;
    default: return refuse(X509_STORE_CTX_get_current_cert(verification));
  }
}

static int judge_certificate(int good, X509_STORE_CTX *verification) {
  if (!good) return judge_failure(verification);
  if (X509_STORE_CTX_get_error_depth(verification) != 0) return 1;
  SSL *tls = X509_STORE_CTX_get_ex_data(verification, SSL_get_ex_data_X509_STORE_CTX_idx());
  STACK_OF(X509_CRL) *lists = tls ? SSL_CTX_get_app_data(SSL_get_SSL_CTX(tls)) : NULL;
  X509 *listed = X509_STORE_CTX_get0_cert(verification);
  if (!is_listed(lists, listed)) {
    STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(verification);
    listed = NULL;
    for (int i = 0; lists && !listed && i < sk_X509_num(sent); i++)
      if (is_listed(lists, sk_X509_value(sent, i))) listed = sk_X509_value(sent, i);
  }
  if (!listed) return 1;
  X509_STORE_CTX_set_error(verification, X509_V_ERR_CERT_REVOKED);
  return refuse(listed);
}

void rw_tls_check_server(SSL_CTX *context) { SSL_CTX_set_verify(context, SSL_VERIFY_PEER, judge_certificate); }

void rw_tls_demand_certificates(SSL_CTX *context, STACK_OF(X509_CRL) *revoked) {
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, judge_certificate);
  if (!revoked) return;
  SSL_CTX_set_app_data(context, revoked);
  X509_STORE *store = SSL_CTX_get_cert_store(context);
  for (int i = 0; i < sk_X509_CRL_num(revoked); i++) X509_STORE_add_crl(store, sk_X509_CRL_value(revoked, i));
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
}

STACK_OF(X509_CRL) *rw_tls_crl_list(void) { return sk_X509_CRL_new_null(); }

bool rw_tls_crl_list_add(STACK_OF(X509_CRL) *list, X509_CRL *crl) {
  // The first search sorts the entries; better now than in the first handshake.
  X509_REVOKED *entry = NULL;
  ASN1_INTEGER *zero = ASN1_INTEGER_new();
  if (zero) X509_CRL_get0_by_serial(crl, &entry, zero);
  ASN1_INTEGER_free(zero);
  return sk_X509_CRL_push(list, crl) > 0;
}

void rw_tls_crl_list_free(STACK_OF(X509_CRL) *list) { sk_X509_CRL_pop_free(list, X509_CRL_free); }

bool rw_tls_add_chain(SSL_CTX *context, X509 *certificate) {
  return SSL_CTX_add1_chain_cert(context, certificate) == 1;
}

// ---- Files.

static int no_password(char *room, int size, int writing, void *unused) {
  (void)room, (void)size, (void)writing, (void)unused;
  return -1;
}

X509 *rw_tls_pem_certificate(BIO *pem) { return PEM_read_bio_X509(pem, NULL, no_password, NULL); }
EVP_PKEY *rw_tls_pem_key(BIO *pem) { return PEM_read_bio_PrivateKey(pem, NULL, no_password, NULL); }
X509_CRL *rw_tls_pem_crl(BIO *pem) { return PEM_read_bio_X509_CRL(pem, NULL, no_password, NULL); }

bool rw_tls_pem_ended(void) {
  unsigned long code = ERR_peek_last_error();
  bool ended = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
  if (ended) ERR_clear_error();
  return ended;
}

bool rw_tls_seconds(const ASN1_TIME *time, int64_t *seconds) {
  struct tm parts;
  memset(&parts, 0, sizeof parts);
  if (!time || ASN1_TIME_to_tm(time, &parts) != 1) return false;
  *seconds = (int64_t)timegm(&parts);
  return true;
}

// ---- A certificate of our own.

EVP_PKEY *rw_tls_new_key(void) { return EVP_EC_gen("P-256"); }

static bool add_extension(X509 *certificate, int kind, const char *value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
  X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
  bool added = extension && X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

static bool set_serial(X509 *certificate) {
  BIGNUM *number = BN_new();
  bool set = number && BN_rand(number, 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
             BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
  BN_free(number);
  return set;
}

static bool fill(X509 *certificate, EVP_PKEY *key, const char *names, int64_t from, int64_t until) {
  static const unsigned char organisation[] = "etcd";
  X509_NAME *subject = X509_get_subject_name(certificate);
  return X509_set_version(certificate, X509_VERSION_3) && set_serial(certificate) &&
         ASN1_TIME_set(X509_getm_notBefore(certificate), from) && ASN1_TIME_set(X509_getm_notAfter(certificate), until) &&
         X509_NAME_add_entry_by_NID(subject, NID_organizationName, MBSTRING_UTF8, organisation, -1, -1, 0) &&
         X509_set_issuer_name(certificate, subject) && X509_set_pubkey(certificate, key) &&
         add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE") &&
         add_extension(certificate, NID_key_usage,
                       "critical,digitalSignature,keyEncipherment,keyCertSign,cRLSign") &&
         add_extension(certificate, NID_ext_key_usage, "serverAuth") &&
         add_extension(certificate, NID_subject_key_identifier, "hash") &&
         add_extension(certificate, NID_subject_alt_name, names) && X509_sign(certificate, key, EVP_sha256()) > 0;
}

X509 *rw_tls_self_signed(EVP_PKEY *key, const char *names, int64_t from, int64_t until) {
  X509 *certificate = X509_new();
  if (certificate && fill(certificate, key, names, from, until)) return certificate;
  X509_free(certificate);
  return NULL;
}
