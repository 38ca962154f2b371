// Closed loop of requests and answers of one size: the next request leaves when the answer is complete.
#include "load.h"

struct caller {
  int fd;
  uint32_t received;   // bytes of the answer so far
  uint64_t started;
  uint64_t left;       // requests still to send
};

static char message[1 << 20], answer[1 << 20];

static void call(struct caller *caller, const struct options *options) {
  caller->left--;
  caller->received = 0;
  caller->started = now_ns();
  ssize_t n = send(caller->fd, message, options->message, MSG_NOSIGNAL);
  if (n != (ssize_t)options->message) die("rr send: %s", n < 0 ? strerror(errno) : "short");
}

// Takes what has arrived; true when the connection has nothing more to do.
static bool take(struct caller *caller, const struct options *options, uint64_t deadline,
                 struct histogram *histogram) {
  ssize_t n = recv(caller->fd, answer, options->message - caller->received, 0);
  if (n < 0 && errno == EAGAIN) return false;
  if (n <= 0) die("rr receive: %s", n < 0 ? strerror(errno) : "closed by the other side");
  caller->received += (uint32_t)n;
  if (caller->received < options->message) return false;
  uint64_t now = now_ns();
  histogram_add(histogram, now - caller->started);
  if (caller->left == 0 || now >= deadline) return true;
  call(caller, options);
  return false;
}

static struct caller *open_callers(const struct options *options, int epoll) {
  struct caller *callers = calloc(options->connections, sizeof *callers);
  if (!callers) die("out of memory");
  for (uint32_t i = 0; i < options->connections; i++) {
    uint64_t share = options->requests / options->connections;
    bool one_more = i < options->requests % options->connections;
    callers[i].fd = open_connection(options);
    callers[i].left = options->requests ? share + one_more : UINT64_MAX;
    send_all(callers[i].fd, (char[]){MODE_ECHO}, 1);
    set_nonblocking(callers[i].fd);
    watch(epoll, EPOLL_CTL_ADD, callers[i].fd, EPOLLIN, &callers[i]);
  }
  return callers;
}

void run_rr(const struct options *options) {
  static struct histogram histogram;
  struct epoll_event events[256];
  if (options->message > sizeof message) die("--size is too big");
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct caller *callers = open_callers(options, epoll);
  uint64_t start = now_ns(), deadline = deadline_of(options, start, options->requests);
  uint32_t active = 0;
  for (uint32_t i = 0; i < options->connections; i++) {
    if (callers[i].left == 0) continue;
    call(&callers[i], options);
    active++;
  }
  while (active > 0) {
    int ready = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < ready; i++)
      if (take(events[i].data.ptr, options, deadline, &histogram)) active--;
  }
  double seconds = (double)(now_ns() - start) / 1e9;
  printf("{\"mode\":\"rr\",\"connections\":%u,\"size\":%u,\"round_trips\":%llu,\"seconds\":%.6f,",
         options->connections, options->message, (unsigned long long)histogram.total, seconds);
  printf("\"per_second\":%.1f,", (double)histogram.total / seconds);
  histogram_print(&histogram);
  puts("}");
}
