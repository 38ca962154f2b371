// Short connections: connect, one byte there, one byte back, close. A fixed number is on its way at a time.
#include "load.h"

struct visit {
  int fd;
  bool connected;
  uint64_t started;
};

static void begin(struct visit *visit, const struct options *options, int epoll) {
  visit->started = now_ns();
  visit->connected = false;
  visit->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (visit->fd < 0) die("socket: %s", strerror(errno));
  set_nodelay(visit->fd);
  const struct sockaddr *address = (const struct sockaddr *)&options->address;
  if (connect(visit->fd, address, sizeof options->address) != 0 && errno != EINPROGRESS)
    die("churn connect: %s", strerror(errno));
  watch(epoll, EPOLL_CTL_ADD, visit->fd, EPOLLOUT, visit);
}

static void ask(struct visit *visit, int epoll) {
  visit->connected = true;
  static const char request[2] = {MODE_ECHO, 'x'};
  if (send(visit->fd, request, sizeof request, MSG_NOSIGNAL) != sizeof request)
    die("churn send: %s", strerror(errno));
  watch(epoll, EPOLL_CTL_MOD, visit->fd, EPOLLIN, visit);
}

// True when the answer is here and the connection is closed.
static bool finish(struct visit *visit, struct histogram *histogram) {
  char byte;
  ssize_t n = recv(visit->fd, &byte, 1, 0);
  if (n < 0 && errno == EAGAIN) return false;
  if (n != 1) die("churn receive: %s", n < 0 ? strerror(errno) : "closed by the other side");
  close(visit->fd);
  histogram_add(histogram, now_ns() - visit->started);
  return true;
}

void run_churn(const struct options *options) {
  static struct histogram histogram;
  struct epoll_event events[256];
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct visit *visits = calloc(options->connections, sizeof *visits);
  if (!visits) die("out of memory");
  uint64_t start = now_ns(), deadline = deadline_of(options, start, options->requests);
  uint64_t left = options->requests ? options->requests : UINT64_MAX;
  uint32_t active = 0;
  for (; active < options->connections && left > 0; active++, left--) begin(&visits[active], options, epoll);
  while (active > 0) {
    int ready = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < ready; i++) {
      struct visit *visit = events[i].data.ptr;
      if (!visit->connected) {
        ask(visit, epoll);
      } else if (finish(visit, &histogram)) {
        if (left > 0 && now_ns() < deadline) {
          begin(visit, options, epoll);
          left--;
        } else {
          active--;
        }
      }
    }
  }
  double seconds = (double)(now_ns() - start) / 1e9;
  printf("{\"mode\":\"churn\",\"parallel\":%u,\"connections\":%llu,\"seconds\":%.6f,\"per_second\":%.1f,",
         options->connections, (unsigned long long)histogram.total, seconds,
         (double)histogram.total / seconds);
  histogram_print(&histogram);
  puts("}");
}
