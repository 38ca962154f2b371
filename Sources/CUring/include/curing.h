// liburing and the few things Swift cannot see by itself: macros with arguments, constants that liburing 2.3 does not
// name yet, and calls that need _GNU_SOURCE. Everything here is a thin name for one kernel facility.
#pragma once
#include <malloc.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

// Setup and feature flags as typed constants (the kernel header has them as macros, partly newer than liburing 2.3).
enum {
  RW_SETUP_CQSIZE = 1u << 3,
  RW_SETUP_CLAMP = 1u << 4,
  RW_SETUP_SUBMIT_ALL = 1u << 7,
  RW_SETUP_SINGLE_ISSUER = 1u << 12,
  RW_SETUP_DEFER_TASKRUN = 1u << 13,
};

enum { RW_CQE_BUFFER = 1u << 0, RW_CQE_MORE = 1u << 1, RW_CQE_BUFFER_SHIFT = 16 };

// One completion, copied out of the ring.
struct rw_completion {
  uint64_t user_data;
  int32_t result;
  uint32_t flags;
};

// Copies up to `room` completions and advances the completion ring once.
static inline unsigned rw_ring_drain(struct io_uring *ring, struct rw_completion *out, unsigned room) {
  unsigned head = *ring->cq.khead;
  unsigned tail = io_uring_smp_load_acquire(ring->cq.ktail);
  unsigned count = tail - head;
  if (count > room) count = room;
  for (unsigned i = 0; i < count; i++) {
    const struct io_uring_cqe *cqe = &ring->cq.cqes[(head + i) & ring->cq.ring_mask];
    out[i].user_data = cqe->user_data;
    out[i].result = cqe->res;
    out[i].flags = cqe->flags;
  }
  if (count > 0) io_uring_smp_store_release(ring->cq.khead, head + count);
  return count;
}

// True while the kernel holds completions that did not fit into the ring: they come with the next enter.
static inline bool rw_ring_overflowed(const struct io_uring *ring) {
  return IO_URING_READ_ONCE(*ring->sq.kflags) & IORING_SQ_CQ_OVERFLOW;
}

static inline void rw_prep_receive(struct io_uring_sqe *sqe, int fd, unsigned short group, uint64_t user_data) {
  io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = group;
  sqe->user_data = user_data;
}

// A send that never waits in the kernel: it happens during submit, in full and silently, or it posts a completion with
// the bytes that went (or -errno). So nothing it points at is needed after submit, and a good send costs no completion.
static inline void rw_prep_send(struct io_uring_sqe *sqe, int fd, const void *bytes, size_t count, uint64_t user_data) {
  io_uring_prep_send(sqe, fd, bytes, count, MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = user_data;
}

static inline void rw_prep_sendmsg(struct io_uring_sqe *sqe, int fd, const struct msghdr *message, uint64_t user_data) {
  io_uring_prep_sendmsg(sqe, fd, message, MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = user_data;
}

// A cancel whose own completion is wanted only when there was nothing to cancel (and is then ignored).
static inline void rw_prep_cancel(struct io_uring_sqe *sqe, uint64_t target, uint64_t user_data) {
  io_uring_prep_cancel64(sqe, target, 0);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = user_data;
}

static inline void rw_prep_message(struct io_uring_sqe *sqe, int ring_fd, uint64_t payload, uint64_t user_data) {
  io_uring_prep_msg_ring(sqe, ring_fd, 0, payload, 0);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = user_data;
}

// Tells ThreadSanitizer, when there is one, that the ring's memory is new. liburing maps and unmaps it by system calls that
// the sanitizer does not see, so it would take what an earlier ring did at the same address for a race with this one.
void rw_ring_is_new(const struct io_uring *ring);

// Calls that need _GNU_SOURCE. All return -errno instead of setting it.
int rw_accept(int listener);
int rw_pipe(int ends[2], int capacity);
long rw_splice(int from, int to, size_t count);
int rw_send_message(int fd, const struct iovec *pieces, int count);
int rw_receive_message(int fd, const struct iovec *pieces, int count);
bool rw_tcp_is_closed(int fd);
int rw_set_cpu(int cpu);
int rw_allowed_cpus(int *cpus, int room);
int rw_thread_name(const char *name);
