// Watch client: connections x streams x watchers on one key or prefix, and the writer that makes the events, which goes
// straight to etcd. Every value begins with the time of its Put and a number, so latency is known. Each watcher's events are
// checked to come once and in the order of revisions, which need not be that of the Puts, as several are under way at a time.
//
// Prints READY when all watchers stand, begins to write at a line on stdin, ends with one line of JSON. With --stuck the
// first connections read nothing while the events come; when all others have theirs it prints STUCK, waits for a line on
// stdin, and then reads what those have missed.
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "Load/histogram.h"
#include "Load/net.h"
#include "h2.h"

enum { READ_BYTES = 1 << 20, READY_EVENTS = 512, WRITES_UNDER_WAY = 1000, CONNECTS_A_TURN = 64, STAMP_BYTES = 16 };
enum { RECREDIT = H2_LARGE_WINDOW / 2 };

static const char watch_path[] = "/etcdserverpb.Watch/Watch", put_path[] = "/etcdserverpb.KV/Put";

static struct {
  struct sockaddr_in address, etcd;
  const char *key;
  bool prefix;
  uint32_t connections, streams, watchers, size, warm_up, stuck;
  uint64_t events;
  double rate, patience;
} options = {.key = "watched", .connections = 1, .streams = 1, .watchers = 1, .size = 256, .events = 100,
             .rate = 100, .patience = 5};

struct stream {
  uint32_t asked;               // creates that were sent
  uint32_t partial, capacity;   // of a message that ends in a later frame
  int64_t window, consumed;
  uint8_t *message;
  uint64_t *last;               // the revision of the last event, by watch id
};

struct connection {
  int fd;
  bool greeted, waits_for_room, probe, stuck;
  uint32_t carried, waiting, capacity, peer_window;
  uint8_t *carry, *output;
  int64_t window, consumed;
  struct stream *streams;
};

static struct {
  uint64_t created, delivered, responses, disorder, cancelled, bytes, reads, now, first, final;
  struct histogram latency, added;
} seen;

static int poller;
static struct connection probe;
static bool probing;                  // unless the address is etcd's own
static uint64_t *probed;              // when the probe, which watches etcd itself, saw an event
static uint64_t most_events;
static _Atomic uint64_t written;      // events that were sent to etcd
static _Atomic uint64_t first_write;  // of those that count
static uint8_t read_buffer[H2_FRAME_HEAD + (1 << 24) + READ_BYTES];

static void *allocate(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (!memory) die("out of memory");
  return memory;
}

static int connect_to(const struct sockaddr_in *address) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) != 0) die("connect: %s", strerror(errno));
  set_nodelay(fd);
  return fd;
}

// Writer

static void send_whole(int fd, const uint8_t *bytes, size_t count) {
  while (count > 0) {
    ssize_t n = send(fd, bytes, count, MSG_NOSIGNAL);
    if (n < 0) die("writer: %s", strerror(errno));
    bytes += n, count -= (size_t)n;
  }
}

struct writer {
  int fd;
  uint32_t held;
  int64_t window;
  uint64_t answered;
  uint8_t bytes[1 << 16];
};

static void read_answers(struct writer *w, bool wait) {
  ssize_t n = recv(w->fd, w->bytes + w->held, sizeof w->bytes - w->held, wait ? 0 : MSG_DONTWAIT);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) die("writer: connection ended");
  w->held += (uint32_t)n;
  uint32_t used = 0, took;
  struct frame frame;
  uint8_t answer[32];
  for (; (took = take_frame(w->bytes + used, w->held - used, &frame)); used += took) {
    if (frame.type == H2_SETTINGS && !(frame.flags & H2_ACK)) {
      send_whole(w->fd, answer, (size_t)(put_frame(answer, 0, H2_SETTINGS, H2_ACK, 0) - answer));
    } else if (frame.type == H2_PING && !(frame.flags & H2_ACK)) {
      uint8_t *to = put_frame(answer, 8, H2_PING, H2_ACK, 0);
      memcpy(to, frame.payload, 8);
      send_whole(w->fd, answer, H2_FRAME_HEAD + 8);
    } else if (frame.type == H2_WINDOW && frame.stream == 0) {
      w->window += get32(frame.payload);
    } else if (frame.type == H2_HEADERS && (frame.flags & H2_END_STREAM)) {
      w->answered++;
    } else if (frame.type == H2_GOAWAY || frame.type == H2_RESET) {
      die("writer: refused");
    }
  }
  memmove(w->bytes, w->bytes + used, w->held - used);
  w->held -= used;
}

static void put(struct writer *w, uint64_t number) {
  static uint8_t value[1 << 20], bytes[(1 << 20) + 1024];
  char key[256];
  int key_length = options.prefix ? snprintf(key, sizeof key, "%s/%u", options.key, (unsigned)(number % 10))
                                  : snprintf(key, sizeof key, "%s", options.key);
  uint32_t length = 2 + (uint32_t)key_length + 1 + varint_bytes(options.size) + options.size;
  uint32_t stream = (uint32_t)(2 * number - 1);
  uint8_t *to = put_request(bytes, stream, put_path), *data = to;
  to = put_grpc(to + H2_FRAME_HEAD, length);
  to = put_bytes(to, 1, key, (uint32_t)key_length);
  uint64_t now = now_ns();
  memset(value, 'x', options.size);
  memcpy(value, &now, 8);
  memcpy(value + 8, &number, 8);
  to = put_bytes(to, 2, value, options.size);
  put_frame(data, length + GRPC_HEAD, H2_DATA, H2_END_STREAM, stream);
  while (w->window < length + GRPC_HEAD || number - 1 - w->answered >= WRITES_UNDER_WAY) read_answers(w, true);
  w->window -= length + GRPC_HEAD;
  send_whole(w->fd, bytes, (size_t)(to - bytes));
  if (number == options.warm_up + 1) first_write = now;
  written = number;
}

// Writes the events of one half, the warm-up or the run, with the rate asked for or each after the answer to the last.
static void write_events(struct writer *w, uint64_t from, uint64_t to) {
  uint64_t start = now_ns();
  for (uint64_t number = from; number <= to; number++) {
    if (options.rate > 0) {
      uint64_t due = start + (uint64_t)((double)(number - from) * 1e9 / options.rate);
      struct timespec when = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)};
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
    }
    put(w, number);
    read_answers(w, false);
    while (options.rate <= 0 && w->answered < number) read_answers(w, true);
  }
  while (w->answered < to) read_answers(w, true);
}

static struct writer writer = {.window = H2_FIRST_WINDOW};

static void *write_warm_up(void *nothing) {
  uint8_t greeting[128];
  writer.fd = connect_to(&options.etcd);
  memcpy(greeting, h2_preface, H2_PREFACE_BYTES);
  send_whole(writer.fd, greeting, (size_t)(put_greeting(greeting + H2_PREFACE_BYTES) - greeting));
  write_events(&writer, 1, options.warm_up);
  return nothing;
}

static void *write_run(void *nothing) {
  write_events(&writer, options.warm_up + 1, most_events);
  return nothing;
}

// Watchers

static uint32_t create_bytes(void) {
  uint32_t key = (uint32_t)strlen(options.key) + (options.prefix ? 1 : 0);
  return 2 + 2 + key + (options.prefix ? 2 + key : 0);
}

static uint8_t *put_create(uint8_t *to) {
  uint32_t length = create_bytes(), key = (uint32_t)strlen(options.key);
  char name[256];
  memcpy(name, options.key, key);
  if (options.prefix) name[key++] = '/';
  to = put_grpc(to, length);
  *to++ = 1 << 3 | 2, *to++ = (uint8_t)(length - 2);
  to = put_bytes(to, 1, name, key);
  if (!options.prefix) return to;
  name[key - 1]++;
  return put_bytes(to, 2, name, key);
}

static void flush(struct connection *c) {
  uint32_t sent = 0;
  while (sent < c->waiting) {
    ssize_t n = send(c->fd, c->output + sent, c->waiting - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN) die("send: %s", strerror(errno));
    if (n < 0) break;
    sent += (uint32_t)n;
  }
  memmove(c->output, c->output + sent, c->waiting - sent);
  c->waiting -= sent;
  if ((c->waiting > 0) == c->waits_for_room) return;
  c->waits_for_room = !c->waits_for_room;
  watch(poller, EPOLL_CTL_MOD, c->fd, EPOLLIN | (c->waits_for_room ? EPOLLOUT : 0), c);
}

static uint8_t *room(struct connection *c, uint32_t bytes) {
  if (c->waiting + bytes > c->capacity) {
    c->capacity = 2 * (c->waiting + bytes);
    c->output = realloc(c->output, c->capacity);
    if (!c->output) die("out of memory");
  }
  return c->output + c->waiting;
}

static void said(struct connection *c, const uint8_t *end) { c->waiting = (uint32_t)(end - c->output); }

// Sends as many creates as the windows of the peer allow.
static void ask(struct connection *c) {
  uint32_t one = GRPC_HEAD + create_bytes(), streams = c->probe ? 1 : options.streams;
  for (uint32_t i = 0; i < streams; i++) {
    struct stream *s = &c->streams[i];
    uint32_t watchers = c->probe ? 1 : options.watchers;
    while (s->asked < watchers) {
      int64_t least = c->window < s->window ? c->window : s->window;
      if (least > H2_FRAME_BYTES) least = H2_FRAME_BYTES;
      uint32_t count = least < one ? 0 : (uint32_t)least / one;
      if (count > watchers - s->asked) count = watchers - s->asked;
      if (count == 0) break;
      uint8_t *to = put_frame(room(c, H2_FRAME_HEAD + count * one), count * one, H2_DATA, 0, 2 * i + 1);
      for (uint32_t k = 0; k < count; k++) to = put_create(to);
      said(c, to);
      s->asked += count;
      s->window -= count * one;
      c->window -= count * one;
    }
  }
}

static void begin(struct connection *c, const struct sockaddr_in *address) {
  uint32_t streams = c->probe ? 1 : options.streams;
  c->fd = connect_to(address);
  c->window = c->peer_window = H2_FIRST_WINDOW;
  c->streams = allocate(streams, sizeof *c->streams);
  uint8_t *to = room(c, 256 + streams * 256);
  memcpy(to, h2_preface, H2_PREFACE_BYTES);
  to = put_greeting(to + H2_PREFACE_BYTES);
  for (uint32_t i = 0; i < streams; i++) {
    c->streams[i].window = H2_FIRST_WINDOW;
    c->streams[i].last = allocate(c->probe ? 1 : options.watchers, sizeof(uint64_t));
    to = put_request(to, 2 * i + 1, watch_path);
  }
  said(c, to);
  watch(poller, EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
  flush(c);
}

static void deliver(struct connection *c, uint64_t *last, uint64_t revision, const uint8_t *value) {
  uint64_t sent, number;
  memcpy(&sent, value, 8);
  memcpy(&number, value + 8, 8);
  if (number == 0 || number > most_events) die("an event that was not written");
  if (c->probe) {
    probed[number] = seen.now;
    return;
  }
  if (revision <= *last) {
    seen.disorder++;
    return;
  }
  *last = revision;
  seen.delivered++;
  if (c->stuck) return;
  seen.final = seen.now;
  if (number <= options.warm_up) return;
  histogram_add(&seen.latency, seen.now - sent);
  uint64_t direct = probed[number];
  if (direct) histogram_add(&seen.added, seen.now > direct ? seen.now - direct : 0);
}

static void take_response(struct connection *c, struct stream *s, const uint8_t *bytes, uint32_t length) {
  const uint8_t *at = bytes, *end = bytes + length;
  uint64_t id = 0, size;
  bool created = false, cancelled = false;
  for (struct field f; take_field(&at, end, &f);) {
    if (f.number == 2 && f.kind == 0) id = f.value;
    if (f.number == 3 && f.kind == 0) created = f.value;
    if (f.number == 4 && f.kind == 0) cancelled = f.value;
  }
  if (at != end) die("a response that is no protobuf");
  if (cancelled) {
    seen.cancelled++;
    return;
  }
  if (created) {
    seen.created++;
    return;
  }
  if (id >= (c->probe ? 1 : options.watchers)) die("a response for watcher %llu", (unsigned long long)id);
  seen.responses += !c->probe;
  at = bytes;
  for (struct field f; take_field(&at, end, &f);) {
    if (f.number != 11 || f.kind != 2) continue;
    const uint8_t *pair = find_bytes(f.bytes, f.value, 2, &size);
    const uint8_t *value = NULL, *pair_end = pair ? pair + size : NULL;
    uint64_t revision = 0;
    for (struct field part; take_field(&pair, pair_end, &part);) {
      if (part.number == 3 && part.kind == 0) revision = part.value;
      if (part.number == 5 && part.kind == 2 && part.value >= STAMP_BYTES) value = part.bytes;
    }
    if (value) deliver(c, &s->last[id], revision, value);
  }
}

static void keep(struct stream *s, const uint8_t *bytes, uint32_t count) {
  if (s->partial + count > s->capacity) {
    s->capacity = 2 * (s->partial + count);
    s->message = realloc(s->message, s->capacity);
    if (!s->message) die("out of memory");
  }
  memcpy(s->message + s->partial, bytes, count);
  s->partial += count;
}

// Messages that lie whole in one frame are read where they are.
static void take_data(struct connection *c, const struct frame *frame) {
  struct stream *s = &c->streams[frame->stream / 2];
  const uint8_t *at = frame->payload, *end = at + frame->length;
  while (at < end) {
    uint32_t left = (uint32_t)(end - at);
    if (s->partial > 0) {
      uint32_t wanted = s->partial < GRPC_HEAD ? GRPC_HEAD : GRPC_HEAD + get32(s->message + 1);
      uint32_t count = wanted - s->partial < left ? wanted - s->partial : left;
      keep(s, at, count);
      at += count;
      if (s->partial < GRPC_HEAD || s->partial < GRPC_HEAD + get32(s->message + 1)) continue;
      take_response(c, s, s->message + GRPC_HEAD, s->partial - GRPC_HEAD);
      s->partial = 0;
    } else if (left < GRPC_HEAD || left - GRPC_HEAD < get32(at + 1)) {
      keep(s, at, left);
      return;
    } else {
      uint32_t length = get32(at + 1);
      take_response(c, s, at + GRPC_HEAD, length);
      at += GRPC_HEAD + length;
    }
  }
}

static void credit(struct connection *c, const struct frame *frame) {
  struct stream *s = &c->streams[frame->stream / 2];
  s->consumed += frame->length;
  c->consumed += frame->length;
  if (s->consumed > RECREDIT) {
    said(c, put_window(room(c, 13), frame->stream, (uint32_t)s->consumed));
    s->consumed = 0;
  }
  if (c->consumed > RECREDIT) {
    said(c, put_window(room(c, 13), 0, (uint32_t)c->consumed));
    c->consumed = 0;
  }
}

static void take_settings(struct connection *c, const struct frame *frame) {
  uint32_t streams = c->probe ? 1 : options.streams;
  if (frame->flags & H2_ACK) return;
  for (uint32_t i = 0; i + 6 <= frame->length; i += 6) {
    unsigned name = frame->payload[i + 1];
    uint32_t value = get32(frame->payload + i + 2);
    if (name == H2_SETTING_STREAMS && value < streams) die("only %u streams a connection are allowed", value);
    if (name != H2_SETTING_WINDOW) continue;
    for (uint32_t k = 0; k < streams; k++) c->streams[k].window += (int64_t)value - c->peer_window;
    c->peer_window = value;
  }
  c->greeted = true;
  said(c, put_frame(room(c, H2_FRAME_HEAD), 0, H2_SETTINGS, H2_ACK, 0));
}

static void take(struct connection *c, const struct frame *frame) {
  bool ours = (frame->stream & 1) && frame->stream / 2 < (c->probe ? 1 : options.streams);
  switch (frame->type) {
    case H2_DATA:
      if (!ours) die("DATA of an unknown stream");
      take_data(c, frame);
      credit(c, frame);
      break;
    case H2_HEADERS:
      if (frame->flags & H2_END_STREAM) die("a watch stream was ended");
      break;
    case H2_SETTINGS:
      take_settings(c, frame);
      break;
    case H2_PING:
      if (frame->flags & H2_ACK) break;
      uint8_t *to = put_frame(room(c, H2_FRAME_HEAD + 8), 8, H2_PING, H2_ACK, 0);
      memcpy(to, frame->payload, 8);
      said(c, to + 8);
      break;
    case H2_WINDOW:
      if (frame->stream == 0) c->window += get32(frame->payload);
      else if (ours) c->streams[frame->stream / 2].window += get32(frame->payload);
      break;
    case H2_GOAWAY:
    case H2_RESET:
      die("the peer gave up a connection or stream");
  }
}

// What is cut off at the end of one read is put before the next.
static void readable(struct connection *c) {
  if (c->carried) memcpy(read_buffer, c->carry, c->carried);
  ssize_t n = recv(c->fd, read_buffer + c->carried, READ_BYTES, MSG_DONTWAIT);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) die("receive: %s", n < 0 ? strerror(errno) : "closed by the other side");
  seen.now = now_ns();
  seen.reads++;
  seen.bytes += (uint64_t)n;
  uint64_t count = c->carried + (uint64_t)n, used = 0;
  uint32_t took;
  struct frame frame;
  for (; (took = take_frame(read_buffer + used, count - used, &frame)); used += took) take(c, &frame);
  free(c->carry);
  c->carry = NULL;
  c->carried = (uint32_t)(count - used);
  if (c->carried) memcpy(c->carry = allocate(1, c->carried), read_buffer + used, c->carried);
  if (c->greeted) ask(c);
  if (c->waiting) flush(c);
}

static bool turn(int milliseconds) {
  static struct epoll_event ready[READY_EVENTS];
  int count = epoll_wait(poller, ready, READY_EVENTS, milliseconds);
  for (int i = 0; i < count; i++) {
    struct connection *c = ready[i].data.ptr;
    if (ready[i].events & EPOLLOUT) flush(c);
    if (ready[i].events & ~(uint32_t)EPOLLOUT) readable(c);
  }
  return count > 0;
}

static uint64_t watchers_in_all(void) {
  return (uint64_t)options.connections * options.streams * options.watchers;
}

// Until there are so many deliveries of the events that are written, or none has come for as long as patience lasts.
static void await_events(uint64_t events, uint64_t deliveries) {
  uint64_t last = now_ns(), before = seen.delivered;
  while (seen.delivered < deliveries || (probing && events > 0 && !probed[events])) {
    turn(100);
    if (seen.delivered != before || written < events) before = seen.delivered, last = now_ns();
    if ((double)(now_ns() - last) > options.patience * 1e9) break;
  }
}

static void run_writer(void *(*part)(void *), uint64_t events, uint64_t deliveries) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, part, NULL) != 0) die("no thread");
  await_events(events, deliveries);
  pthread_join(thread, NULL);
}

static void await_line(void) {
  // A turn now and then while the other side measures, as it may send pings.
  for (struct pollfd input = {.fd = 0, .events = POLLIN}; poll(&input, 1, 0) == 0;) turn(20);
  char line[2];
  if (!fgets(line, sizeof line, stdin)) die("stdin was closed");
}

// The run proper, in which those that are stuck have the events of the warm-up and get no more before its end.
static void run(struct connection *all) {
  for (uint32_t i = 0; i < options.stuck; i++) {
    all[i].stuck = true;
    watch(poller, EPOLL_CTL_DEL, all[i].fd, 0, &all[i]);
  }
  uint64_t everything = most_events * watchers_in_all();
  uint64_t missed = options.events * options.stuck * options.streams * options.watchers;
  run_writer(write_run, most_events, everything - missed);
  if (!options.stuck) return;
  puts("STUCK");
  fflush(stdout);
  await_line();
  for (uint32_t i = 0; i < options.stuck; i++) watch(poller, EPOLL_CTL_ADD, all[i].fd, EPOLLIN, &all[i]);
  await_events(most_events, everything);
}

static void report(double creating) {
  uint64_t counted = options.events * watchers_in_all(), warm = options.warm_up * watchers_in_all();
  uint64_t delivered = seen.delivered > warm ? seen.delivered - warm : 0;
  printf("{\"connections\":%u,\"streams\":%u,\"watchers\":%u,\"events\":%llu,\"deliveries\":%llu,\"missing\":%lld,"
         "\"disorder\":%llu,\"cancelled\":%llu,\"responses\":%llu,\"reads\":%llu,\"bytes\":%llu,\"create_seconds\":%.3f,"
         "\"seconds\":%.4f,", options.connections, options.streams, options.watchers, (unsigned long long)options.events,
         (unsigned long long)delivered, (long long)(counted - delivered), (unsigned long long)seen.disorder,
         (unsigned long long)seen.cancelled, (unsigned long long)seen.responses, (unsigned long long)seen.reads,
         (unsigned long long)seen.bytes, creating, (double)(seen.final - first_write) / 1e9);
  histogram_print(&seen.latency);
  printf(",\"added\":{");
  histogram_print(&seen.added);
  printf("}}\n");
  fflush(stdout);
}

static void read_options(int count, char **arguments) {
  static const struct option known[] = {
      {"addr", 1, 0, 'a'},     {"etcd", 1, 0, 'e'},   {"key", 1, 0, 'k'},    {"connections", 1, 0, 'c'},
      {"streams", 1, 0, 's'},  {"watchers", 1, 0, 'w'}, {"events", 1, 0, 'n'}, {"rate", 1, 0, 'r'},
      {"size", 1, 0, 'z'},     {"warm-up", 1, 0, 'u'}, {"patience", 1, 0, 'p'}, {"prefix", 0, 0, 'x'}, {"stuck", 1, 0, 't'},
      {0, 0, 0, 0}};
  bool addressed = false;
  for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;) {
    switch (option) {
      case 'a': options.address = parse_address(optarg), addressed = true; break;
      case 'e': options.etcd = parse_address(optarg); break;
      case 'k': options.key = optarg; break;
      case 'c': options.connections = (uint32_t)atoi(optarg); break;
      case 's': options.streams = (uint32_t)atoi(optarg); break;
      case 'w': options.watchers = (uint32_t)atoi(optarg); break;
      case 'n': options.events = (uint64_t)atoll(optarg); break;
      case 'r': options.rate = atof(optarg); break;
      case 'z': options.size = (uint32_t)atoi(optarg); break;
      case 'u': options.warm_up = (uint32_t)atoi(optarg); break;
      case 'p': options.patience = atof(optarg); break;
      case 'x': options.prefix = true; break;
      case 't': options.stuck = (uint32_t)atoi(optarg); break;
      default: addressed = false; optind = count;
    }
  }
  if (!addressed || !options.etcd.sin_port || !watchers_in_all() || strlen(options.key) > 100 ||
      options.size < STAMP_BYTES || options.size > H2_FRAME_BYTES - 256 || options.stuck > options.connections)
    die("watch_load --addr PROXY --etcd ETCD [--connections N] [--streams N] [--watchers N] [--key KEY] [--prefix]\n"
        "           [--events N] [--rate A_SECOND|0] [--size BYTES] [--warm-up EVENTS] [--patience SECONDS]\n"
        "           [--stuck CONNECTIONS]");
}

int main(int count, char **arguments) {
  read_options(count, arguments);
  raise_descriptor_limit();
  poller = epoll_create1(EPOLL_CLOEXEC);
  most_events = options.warm_up + options.events;
  probed = allocate(most_events + 1, sizeof *probed);
  struct connection *all = allocate(options.connections, sizeof *all);
  uint64_t start = now_ns();
  probing = memcmp(&options.address, &options.etcd, sizeof options.etcd) != 0;
  probe.probe = true;
  if (probing) begin(&probe, &options.etcd);
  for (uint32_t i = 0; i < options.connections; i++) {
    begin(&all[i], &options.address);
    if (i % CONNECTS_A_TURN == 0) turn(0);
  }
  while (seen.created < watchers_in_all() + probing) {
    if (!turn(20000)) die("%llu of %llu watchers were created", (unsigned long long)seen.created,
                          (unsigned long long)watchers_in_all() + probing);
    if (seen.cancelled) die("a watcher was refused");
  }
  double creating = (double)(now_ns() - start) / 1e9;
  run_writer(write_warm_up, options.warm_up, options.warm_up * watchers_in_all());
  puts("READY");
  fflush(stdout);
  await_line();
  run(all);
  report(creating);
  return 0;
}
