// The server side of the load: echo, source or sink, chosen by the first byte of each connection. It prints
// its port, and ends when its stdin does, so it cannot outlive whoever started it.
#include "net.h"

struct client {
  int fd;
  char mode;
  bool ended;               // the other side sent its last byte
  uint8_t header_bytes;
  uint8_t header[HEADER_BYTES];
  uint32_t events;
  uint32_t pending_bytes;   // echo that did not fit
  char *pending;
  uint64_t to_send, received;
};

static char outgoing[CHUNK_BYTES], incoming[CHUNK_BYTES];
static int epoll;

static void drop(struct client *client) {
  close(client->fd);
  free(client->pending);
  free(client);
}

static void set_events(struct client *client, uint32_t events) {
  if (client->events == events) return;
  client->events = events;
  watch(epoll, EPOLL_CTL_MOD, client->fd, events, client);
}

static void accept_clients(int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    set_nodelay(fd);
    struct client *client = calloc(1, sizeof *client);
    if (!client) die("out of memory");
    client->fd = fd;
    client->events = EPOLLIN;
    watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, client);
  }
}

// Sends back what it can and keeps the rest until the socket takes it. False: the connection is over.
static bool echo(struct client *client, const char *bytes, size_t count) {
  ssize_t n = send(client->fd, bytes, count, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN) return false;
  size_t sent = n > 0 ? (size_t)n : 0;
  char *rest = NULL;
  if (sent < count) {
    rest = malloc(count - sent);
    if (!rest) die("out of memory");
    memcpy(rest, bytes + sent, count - sent);
  }
  free(client->pending);
  client->pending = rest;
  client->pending_bytes = (uint32_t)(count - sent);
  set_events(client, rest ? EPOLLOUT : EPOLLIN);
  return true;
}

// Sends the next piece; at the end the receipt, if one is due. False: the connection is over.
static bool source(struct client *client) {
  if (client->to_send > 0) {
    size_t count = client->to_send < CHUNK_BYTES ? client->to_send : CHUNK_BYTES;
    ssize_t n = send(client->fd, outgoing, count, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN;
    if (client->to_send != UINT64_MAX) client->to_send -= (uint64_t)n;
    if (client->to_send > 0) return true;
  }
  if (client->mode == MODE_SOURCE) return client->ended ? false : shutdown(client->fd, SHUT_WR) == 0;
  if (!client->ended) return true;
  send(client->fd, &client->received, sizeof client->received, MSG_NOSIGNAL);
  return false;
}

// What a connection waits for: input until its end, and room while there is something to send.
static bool step(struct client *client, bool writable) {
  if (writable && !source(client)) return false;
  bool receipt_due = client->ended && client->mode != MODE_SOURCE;
  set_events(client, (client->ended ? 0u : EPOLLIN) | (client->to_send || receipt_due ? EPOLLOUT : 0u));
  return !(client->ended && client->mode == MODE_SOURCE && client->to_send == 0);
}

static void begin(struct client *client) {
  client->mode = (char)client->header[0];
  memcpy(&client->to_send, client->header + 1, sizeof client->to_send);
}

// Consumes the bytes of the header; returns how many belong to it.
static size_t take_header(struct client *client, const char *bytes, size_t count) {
  size_t taken = 0;
  while (taken < count && client->mode == 0) {
    client->header[client->header_bytes++] = (uint8_t)bytes[taken++];
    if (client->header[0] == MODE_ECHO) client->mode = MODE_ECHO;
    else if (client->header_bytes == HEADER_BYTES) begin(client);
  }
  return taken;
}

static bool readable(struct client *client) {
  ssize_t n = recv(client->fd, incoming, sizeof incoming, 0);
  if (n < 0) return errno == EAGAIN;
  size_t count = (size_t)n, skip = client->mode ? 0 : take_header(client, incoming, count);
  if (client->mode == MODE_ECHO)
    return n == 0 ? false : count == skip || echo(client, incoming + skip, count - skip);
  if (n == 0) {
    if (client->mode == 0) return false;
    client->ended = true;
    if (client->to_send == UINT64_MAX) client->to_send = 0;
  }
  client->received += count - skip;
  return client->mode == 0 || step(client, false);
}

static bool serve(struct client *client, uint32_t events) {
  if (client->mode == MODE_ECHO && client->pending)
    return !(events & ~(uint32_t)EPOLLOUT) && echo(client, client->pending, client->pending_bytes);
  if ((events & ~(uint32_t)EPOLLOUT) && !client->ended) return readable(client);
  if (events & (EPOLLERR | EPOLLHUP)) return false;
  return step(client, true);
}

static int listen_on(struct sockaddr_in address) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  socklen_t length = sizeof address;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4096) != 0)
    die("listen: %s", strerror(errno));
  getsockname(fd, (struct sockaddr *)&address, &length);
  printf("%u\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

int main(int count, char **arguments) {
  if (count < 2) die("usage: sink HOST:PORT [cpu]");
  struct epoll_event events[256];
  static char is_listener, is_stdin;
  raise_descriptor_limit();
  if (count > 2) pin_to_cpu(atoi(arguments[2]));
  epoll = epoll_create1(EPOLL_CLOEXEC);
  int listener = listen_on(parse_address(arguments[1]));
  watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, &is_listener);
  watch(epoll, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, &is_stdin);
  for (;;) {
    int ready = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < ready; i++) {
      void *what = events[i].data.ptr;
      if (what == &is_stdin) return 0;
      if (what == &is_listener) accept_clients(listener);
      else if (!serve(what, events[i].events)) drop(what);
    }
  }
}
