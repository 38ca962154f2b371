// What the two floor relays share: arguments, the ring, listener and upstream sockets, one thread a ring.
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { RING_ENTRIES = 2048, COMPLETIONS = 16384 };

static struct sockaddr_in listen_address, endpoint;

__attribute__((noreturn)) static inline void fail(const char *what, int error) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(error));
  exit(1);
}

static inline struct sockaddr_in parse_address(const char *text) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  char host[64] = {0};
  unsigned port = 0;
  if (sscanf(text, "%63[^:]:%u", host, &port) != 2 || inet_pton(AF_INET, host, &address.sin_addr) != 1)
    fail(text, EINVAL);
  address.sin_port = htons((uint16_t)port);
  return address;
}

static inline void set_nodelay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline int open_listener(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&listen_address, sizeof listen_address) != 0 || listen(fd, 4096) != 0)
    fail("listen", errno);
  return fd;
}

static inline int open_upstream(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket", errno);
  set_nodelay(fd);
  return fd;
}

static inline void open_ring(struct io_uring *ring) {
  struct io_uring_params params = {
      .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
      .cq_entries = COMPLETIONS};
  int result = io_uring_queue_init_params(RING_ENTRIES, ring, &params);
  if (result < 0) fail("io_uring_queue_init", -result);
  result = io_uring_register_ring_fd(ring);
  if (result < 0) fail("io_uring_register_ring_fd", -result);
}

// The next free request; submits what is queued when the queue is full.
static inline struct io_uring_sqe *next_sqe(struct io_uring *ring) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
  if (sqe) return sqe;
  io_uring_submit(ring);
  sqe = io_uring_get_sqe(ring);
  if (!sqe) fail("submission queue", EBUSY);
  return sqe;
}

// Requests carry the address of their connection, which calloc aligns to 16, with operation and side below.
static inline uint64_t tag(const void *pair, unsigned operation, unsigned side) {
  return (uint64_t)(uintptr_t)pair | operation << 1 | side;
}
static inline void *tagged_pair(uint64_t data) { return (void *)(uintptr_t)(data & ~(uint64_t)15); }
static inline unsigned tagged_operation(uint64_t data) { return (data >> 1) & 7; }
static inline unsigned tagged_side(uint64_t data) { return data & 1; }

static inline void close_in_ring(struct io_uring *ring, int fd) {
  struct io_uring_sqe *sqe = next_sqe(ring);
  io_uring_prep_close(sqe, fd);
  io_uring_sqe_set_data64(sqe, 0);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

static inline void arm_accept(struct io_uring *ring, int listener, unsigned operation) {
  struct io_uring_sqe *sqe = next_sqe(ring);
  io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  io_uring_sqe_set_data64(sqe, tag(NULL, operation, 0));
}

static inline void arm_connect(struct io_uring *ring, int fd, const void *pair, unsigned operation) {
  struct io_uring_sqe *sqe = next_sqe(ring);
  io_uring_prep_connect(sqe, fd, (struct sockaddr *)&endpoint, sizeof endpoint);
  io_uring_sqe_set_data64(sqe, tag(pair, operation, 0));
}

// Arguments: LISTEN ENDPOINT [THREADS]. Every thread has a listener and a ring of its own.
static inline int run_threads(int count, char **arguments, void *(*worker)(void *)) {
  struct rlimit limit;
  if (count < 3) fail("usage: LISTEN ENDPOINT [THREADS]", EINVAL);
  listen_address = parse_address(arguments[1]);
  endpoint = parse_address(arguments[2]);
  int threads = count > 3 ? atoi(arguments[3]) : 2;
  signal(SIGPIPE, SIG_IGN);
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  for (int i = 1; i < threads; i++) {
    pthread_t thread;
    int error = pthread_create(&thread, NULL, worker, NULL);
    if (error) fail("pthread_create", error);
  }
  worker(NULL);
  return 0;
}
