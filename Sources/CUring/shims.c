#include "curing.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

int rw_accept(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

// The capacity that the kernel grants is returned: past pipe-user-pages-soft an unprivileged user gets a small pipe.
int rw_pipe(int ends[2], int capacity) {
  if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) return -errno;
  fcntl(ends[1], F_SETPIPE_SZ, capacity);
  int granted = fcntl(ends[1], F_GETPIPE_SZ);
  return granted < 0 ? 4096 : granted;
}

long rw_splice(int from, int to, size_t count) {
  long moved = splice(from, NULL, to, NULL, count, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
  return moved < 0 ? -errno : moved;
}

int rw_send_message(int fd, const struct iovec *pieces, int count) {
  struct msghdr message = {.msg_iov = (struct iovec *)pieces, .msg_iovlen = (size_t)count};
  ssize_t sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent < 0 ? -errno : (int)sent;
}

int rw_receive_message(int fd, const struct iovec *pieces, int count) {
  struct msghdr message = {.msg_iov = (struct iovec *)pieces, .msg_iovlen = (size_t)count};
  ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
  return got < 0 ? -errno : (int)got;
}

bool rw_tcp_is_closed(int fd) {
  struct tcp_info info;
  socklen_t length = sizeof info;
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_CLOSE;
}

int rw_set_cpu(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof set, &set) < 0 ? -errno : 0;
}

int rw_allowed_cpus(int *cpus, int room) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) < 0) return -errno;
  int count = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE && count < room; cpu++)
    if (CPU_ISSET(cpu, &set)) cpus[count++] = cpu;
  return count;
}

int rw_thread_name(const char *name) { return -pthread_setname_np(pthread_self(), name); }

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RW_THREAD_SANITIZER 1
#endif
#endif

#ifdef RW_THREAD_SANITIZER
void AnnotateNewMemory(const char *file, int line, const volatile void *memory, long size);

void rw_ring_is_new(const struct io_uring *ring) {
  AnnotateNewMemory(__FILE__, __LINE__, ring->sq.sqes, (long)(ring->sq.ring_entries * sizeof(struct io_uring_sqe)));
  AnnotateNewMemory(__FILE__, __LINE__, ring->sq.ring_ptr, (long)ring->sq.ring_sz);
}
#else
void rw_ring_is_new(const struct io_uring *ring) { (void)ring; }
#endif
