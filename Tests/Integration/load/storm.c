// Sends a storm of connections through a gateway: both ends live here, and every byte is checked on arrival.
// usage: storm CONNECTIONS BYTES SEED SECONDS
// Prints the port of its server, reads the gateway's port from stdin, and prints what it has checked.
#include "storm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 1 << 20 };

// One end of one connection: a thread that sends and one that receives.
struct end {
  const struct plan *plan;
  int fd, side;
  bool ended_early;
  atomic_bool saw_reset, is_over;
};

static struct plan *plans;
static uint64_t connections;
static atomic_ullong bytes_checked, resets_seen, headless;

_Noreturn void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  _exit(1);
}

static bool is_reset(void) { return errno == ECONNRESET || errno == EPIPE; }

static int resetting_side(const struct plan *plan) {
  return plan->ending == CLIENT_RESETS ? CLIENT : plan->ending == SERVER_RESETS ? SERVER : -1;
}

static void reset(int fd) {
  struct linger linger = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

// Sizes from 1 B to 1 MB, every order of magnitude equally often.
static uint64_t message_size(uint64_t draw) {
  uint64_t top = 1ull << (draw % 21);
  return 1 + (draw >> 8) % top;
}

static void *send_bytes(void *argument) {
  struct end *end = argument;
  const struct plan *plan = end->plan;
  uint8_t *room = malloc(ROOM);
  uint64_t sent = 0, total = plan->bytes[end->side], draw = plan->key[end->side];
  bool resets = resetting_side(plan) == end->side;
  if (resets) total = plan->reset_at;
  while (sent < total) {
    draw = mix(draw + 1);
    uint64_t count = message_size(draw);
    if (count > total - sent) count = total - sent;
    make_bytes(plan->key[end->side], sent, room, count);
    for (uint64_t done = 0; done < count;) {
      ssize_t n = send(end->fd, room + done, count - done, MSG_NOSIGNAL);
      if (n < 0 && is_reset() && resetting_side(plan) == 1 - end->side) {
        end->saw_reset = true;
        free(room);
        return NULL;
      }
      if (n < 0) die("connection %" PRIu64 ": send: %s", plan->number, strerror(errno));
      done += (uint64_t)n;
    }
    sent += count;
    if ((draw >> 40) % 64 == 0) usleep((useconds_t)((draw >> 48) % 2000));
  }
  if (resets) end->is_over = true; else shutdown(end->fd, SHUT_WR);
  free(room);
  return NULL;
}

static void check(
  const struct end *end, const uint8_t *bytes, uint8_t *expected, uint64_t from, uint64_t count) {
  make_bytes(end->plan->key[1 - end->side], from, expected, count);
  if (memcmp(bytes, expected, count) != 0)
    die("connection %" PRIu64 ": wrong bytes at %" PRIu64, end->plan->number, from);
  bytes_checked += count;
}

static void *receive_bytes(void *argument) {
  struct end *end = argument;
  const struct plan *plan = end->plan;
  uint8_t *room = malloc(ROOM), *expected = malloc(ROOM);
  uint64_t received = 0, total = plan->bytes[1 - end->side], pauses = 300;
  size_t reach = plan->slow[end->side] ? 16384 : ROOM;
  for (;;) {
    ssize_t n = recv(end->fd, room, reach, 0);
    if (n == 0) break;
    if (n < 0 && errno == EAGAIN && !end->is_over) continue;
    if (end->is_over) break;
    if (n < 0 && is_reset() && resetting_side(plan) == 1 - end->side) {
      end->saw_reset = true;
      break;
    }
    if (n < 0) die("connection %" PRIu64 ": receive: %s", plan->number, strerror(errno));
    if (received + (uint64_t)n > total) die("connection %" PRIu64 ": too many bytes", plan->number);
    check(end, room, expected, received, (uint64_t)n);
    received += (uint64_t)n;
    if (!plan->slow[end->side] || pauses == 0) {
      reach = ROOM;
      continue;
    }
    pauses--;
    usleep(1000);
  }
  end->ended_early = received < total;
  free(room);
  free(expected);
  return NULL;
}

// Runs one end: sender and receiver at once, or one after the other, as the plan says.
static void run_end(int fd, int side, const struct plan *plan) {
  struct end end = {.plan = plan, .fd = fd, .side = side};
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct timeval glance = {.tv_usec = 50000};  // so that a receiver notices that its own side resets
  if (resetting_side(plan) == side) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &glance, sizeof glance);
  bool waits = plan->ending == (side == SERVER ? CLIENT_FIRST : SERVER_FIRST);
  if (waits) {
    receive_bytes(&end);
    send_bytes(&end);
  } else {
    pthread_t receiver;
    if (pthread_create(&receiver, NULL, receive_bytes, &end) != 0) die("no thread");
    send_bytes(&end);
    pthread_join(receiver, NULL);
  }
  if (resetting_side(plan) == 1 - side) {
    if (!end.saw_reset) die("connection %" PRIu64 ": a reset came as an end", plan->number);
    resets_seen++;
  } else if (end.ended_early && resetting_side(plan) != side) {
    die("connection %" PRIu64 ": the stream ended early", plan->number);
  }
  if (resetting_side(plan) == side) reset(fd);
  close(fd);
}

static void *serve(void *argument) {
  int fd = (int)(intptr_t)argument;
  uint64_t number;
  if (recv(fd, &number, sizeof number, MSG_WAITALL) != sizeof number || number >= connections) {
    headless++;  // a client that reset at once
    close(fd);
  } else {
    run_end(fd, SERVER, &plans[number]);
  }
  return NULL;
}

static void *be_server(void *argument) {
  int listener = (int)(intptr_t)argument;
  pthread_t *threads = calloc(connections, sizeof *threads);
  for (uint64_t i = 0; i < connections; i++) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0 || pthread_create(&threads[i], NULL, serve, (void *)(intptr_t)fd) != 0) die("cannot serve");
  }
  for (uint64_t i = 0; i < connections; i++) pthread_join(threads[i], NULL);
  return NULL;
}

static struct sockaddr_in gateway = {.sin_family = AF_INET};

static void *be_client(void *argument) {
  const struct plan *plan = argument;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr *)&gateway, sizeof gateway) != 0) die("connect: %s", strerror(errno));
  ssize_t n = send(fd, &plan->number, sizeof plan->number, MSG_NOSIGNAL);
  if (n != sizeof plan->number) die("number not sent");
  run_end(fd, CLIENT, plan);
  return NULL;
}

static uint64_t make_plans(uint64_t bytes, uint64_t seed) {
  uint64_t resets = 0;
  plans = calloc(connections, sizeof *plans);
  for (uint64_t i = 0; i < connections; i++) {
    plans[i] = make_plan(seed, i, bytes);
    resets += resetting_side(&plans[i]) >= 0;
  }
  return resets;
}

int main(int count, char **arguments) {
  if (count != 5) die("usage: storm CONNECTIONS BYTES SEED SECONDS");
  connections = strtoull(arguments[1], NULL, 10);
  uint64_t resets = make_plans(strtoull(arguments[2], NULL, 10), strtoull(arguments[3], NULL, 10));
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0), port;
  if (bind(listener, (struct sockaddr *)&address, length) != 0) die("cannot bind");
  if (listen(listener, 1024) != 0) die("cannot listen");
  getsockname(listener, (struct sockaddr *)&address, &length);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  if (scanf("%d", &port) != 1) die("no port of a gateway");
  gateway.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  gateway.sin_port = htons((uint16_t)port);
  alarm((unsigned)strtoul(arguments[4], NULL, 10));  // a storm that hangs has failed

  pthread_t server, *clients = calloc(connections, sizeof *clients);
  if (pthread_create(&server, NULL, be_server, (void *)(intptr_t)listener) != 0) die("no thread");
  for (uint64_t i = 0; i < connections; i++)
    if (pthread_create(&clients[i], NULL, be_client, &plans[i]) != 0) die("no thread");
  for (uint64_t i = 0; i < connections; i++) pthread_join(clients[i], NULL);
  pthread_join(server, NULL);
  if (resets_seen + headless != resets)
    die("%llu of %" PRIu64 " resets arrived", resets_seen + headless, resets);
  printf("%llu\n", bytes_checked);
}
