// Opens connections, proves each with one echoed byte, and keeps them until a line or the end of stdin.
#include "load.h"

enum { AHEAD = 128 };  // connections opened before the echo of the first is read: stays below any backlog

static void read_echo(int fd) {
  char byte;
  ssize_t n = recv(fd, &byte, 1, 0);
  if (n != 1) die("idle receive: %s", n < 0 ? strerror(errno) : "closed by the other side");
}

void run_idle(const struct options *options) {
  int *fds = calloc(options->connections, sizeof *fds);
  if (!fds) die("out of memory");
  uint64_t start = now_ns();
  for (uint32_t i = 0; i < options->connections; i++) {
    fds[i] = open_connection(options);
    send_all(fds[i], (char[]){MODE_ECHO, 'x'}, 2);
    if (i >= AHEAD) read_echo(fds[i - AHEAD]);
  }
  uint32_t first = options->connections > AHEAD ? options->connections - AHEAD : 0;
  for (uint32_t i = first; i < options->connections; i++) read_echo(fds[i]);
  printf("{\"mode\":\"idle\",\"connections\":%u,\"seconds\":%.6f}\n", options->connections,
         (double)(now_ns() - start) / 1e9);
  fflush(stdout);
  int c;
  while ((c = getchar()) != EOF && c != '\n') continue;
}
