// The least that can be done to deliver events: no etcd, no groups, no flow control. A Put becomes an event for all
// watchers; its bytes are made once, as all connections have the same streams and watchers, and each connection is sent
// them with one request on io_uring, all of them with one system call. Understands the watch client and nothing else.
//
// Arguments: LISTEN. One thread.
#include "Floor/floor.h"
#include "h2.h"

enum { CLOSE, ACCEPT, READABLE, SENT };
enum { EVENTS = 256, STREAMS = 1024, KEPT_BYTES = 1 << 16, READS = 1 << 20 };

struct connection {
  int fd;
  bool greeted, writes, sending;
  uint32_t streams, held, capacity;
  uint32_t *watchers;       // by stream
  uint8_t *bytes;           // not taken apart yet
  uint64_t next;            // the event that it is sent next
  struct connection *after;
};

struct event {
  uint8_t *bytes;
  size_t length;
  uint32_t owed;            // connections that have not been sent it
};

static struct io_uring ring;
static struct event events[EVENTS];
static uint64_t first_event, last_event;  // those under way are first <= n < last
static struct connection *all, *writer;
static uint64_t revision = 1;

static void *reserve(void *memory, size_t bytes) {
  memory = realloc(memory, bytes);
  if (!memory) fail("realloc", ENOMEM);
  return memory;
}

// Answers are few and come before any event, so they may wait for the socket.
static void say(struct connection *c, const uint8_t *bytes, size_t count) {
  while (count > 0) {
    ssize_t n = send(c->fd, bytes, count, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      struct pollfd room = {.fd = c->fd, .events = POLLOUT};
      poll(&room, 1, 1000);
    } else if (n < 0) {
      return;
    } else {
      bytes += n, count -= (size_t)n;
    }
  }
}

static void arm(struct connection *c) {
  struct io_uring_sqe *sqe = next_sqe(&ring);
  io_uring_prep_poll_multishot(sqe, c->fd, POLLIN);
  io_uring_sqe_set_data64(sqe, tag(c, READABLE, 0));
}

static void send_next(struct connection *c) {
  if (c->sending || c->next == last_event) return;
  struct event *event = &events[c->next % EVENTS];
  struct io_uring_sqe *sqe = next_sqe(&ring);
  io_uring_prep_send(sqe, c->fd, event->bytes, event->length, MSG_WAITALL | MSG_NOSIGNAL);
  io_uring_sqe_set_data64(sqe, tag(c, SENT, 0));
  c->sending = true;
}

static void sent(struct connection *c) {
  c->sending = false;
  events[c->next++ % EVENTS].owed--;
  while (first_event < last_event && events[first_event % EVENTS].owed == 0) first_event++;
  send_next(c);
}

static uint8_t *put_header(uint8_t *to) {
  *to++ = 1 << 3 | 2, *to++ = 2, *to++ = 3 << 3;  // header: revision, here always a byte or more
  to[-2] = (uint8_t)(1 + varint_bytes(revision));
  return put_varint(to, revision);
}

static uint32_t header_bytes(void) { return 3 + varint_bytes(revision); }

// The response to the watcher `id` up to the event, which is the same for all.
static uint8_t *put_response(uint8_t *to, uint32_t id, const uint8_t *event, uint32_t length) {
  to = put_grpc(to, header_bytes() + (id ? 1 + varint_bytes(id) : 0) + length);
  to = put_header(to);
  if (id) {
    *to++ = 2 << 3;
    to = put_varint(to, id);
  }
  memcpy(to, event, length);
  return to + length;
}

// Frames are as long as they may be, whatever messages they cut.
static size_t cut_into_frames(const uint8_t *bytes, size_t length, uint32_t stream, uint8_t *to) {
  uint8_t *start = to;
  for (size_t used = 0; used < length;) {
    uint32_t count = length - used < H2_FRAME_BYTES ? (uint32_t)(length - used) : H2_FRAME_BYTES;
    to = put_frame(to, count, H2_DATA, 0, stream);
    memcpy(to, bytes + used, count);
    to += count, used += count;
  }
  return (size_t)(to - start);
}

// events: Event{kv: KeyValue{key, create_revision, mod_revision, version, value}}, as etcd says it.
static uint32_t put_event(uint8_t *to, const uint8_t *key, uint64_t key_length, const uint8_t *value, uint64_t size) {
  uint32_t numbers = 3 * (1 + varint_bytes(revision));
  uint32_t pair = 1 + varint_bytes(key_length) + (uint32_t)key_length + numbers + 1 + varint_bytes(size) + (uint32_t)size;
  uint32_t event = 1 + varint_bytes(pair) + pair;
  uint8_t *start = to;
  *to++ = 11 << 3 | 2;
  to = put_varint(to, event);
  *to++ = 2 << 3 | 2;
  to = put_varint(to, pair);
  to = put_bytes(to, 1, key, (uint32_t)key_length);
  for (unsigned field = 2; field <= 4; field++) {
    *to++ = (uint8_t)(field << 3);
    to = put_varint(to, revision);
  }
  to = put_bytes(to, 5, value, (uint32_t)size);
  return (uint32_t)(to - start);
}

static void publish(const uint8_t *put, uint64_t length) {
  static uint8_t told[1 << 17], *plain;
  uint64_t key_length = 0, size = 0;
  const uint8_t *key = find_bytes(put, length, 1, &key_length), *value = find_bytes(put, length, 2, &size);
  if (!key || !value || key_length + size > sizeof told - 256) fail("put", EINVAL);
  revision++;
  uint32_t one = put_event(told, key, key_length, value, size);
  struct event *event = &events[last_event % EVENTS];
  event->owed = 0;
  event->length = 0;
  const struct connection *shape = NULL;
  for (struct connection *c = all; c; c = c->after) {
    if (c->streams == 0) continue;
    shape = c;
    event->owed++;
  }
  if (!shape) return;
  for (uint32_t i = 0; i < shape->streams; i++) {
    size_t most = (size_t)shape->watchers[i] * (one + 32), length_plain = 0;
    plain = reserve(plain, most);
    for (uint32_t id = 0; id < shape->watchers[i]; id++)
      length_plain = (size_t)(put_response(plain + length_plain, id, told, one) - plain);
    size_t frames = length_plain / H2_FRAME_BYTES + 1;
    event->bytes = reserve(event->bytes, event->length + length_plain + frames * H2_FRAME_HEAD);
    event->length += cut_into_frames(plain, length_plain, 2 * i + 1, event->bytes + event->length);
  }
  last_event++;
  for (struct connection *c = all; c; c = c->after)
    if (c->streams) send_next(c);
}

// Creates: the client puts whole messages into a frame.
static void answer_creates(struct connection *c, const struct frame *frame) {
  static uint8_t answer[1 << 18];
  uint32_t *watchers = &c->watchers[frame->stream / 2];
  uint8_t *to = answer;
  for (uint32_t at = 0; at + GRPC_HEAD <= frame->length; at += GRPC_HEAD + get32(frame->payload + at + 1)) {
    uint32_t id = (*watchers)++;
    uint32_t length = header_bytes() + (id ? 1 + varint_bytes(id) : 0) + 2;
    to = put_grpc(put_frame(to, GRPC_HEAD + length, H2_DATA, 0, frame->stream), length);
    to = put_header(to);
    if (id) {
      *to++ = 2 << 3;
      to = put_varint(to, id);
    }
    *to++ = 3 << 3, *to++ = 1;
  }
  say(c, answer, (size_t)(to - answer));
}

static void answer_headers(struct connection *c, const struct frame *frame) {
  static const char put_path[] = "/etcdserverpb.KV/Put";
  uint8_t answer[64], *to = answer + H2_FRAME_HEAD;
  if (memmem(frame->payload, frame->length, put_path, sizeof put_path - 1)) {
    c->writes = true;
    writer = c;
  } else {
    if (frame->stream / 2 >= STREAMS) fail("streams", E2BIG);
    if (!c->watchers) c->watchers = reserve(NULL, STREAMS * sizeof *c->watchers);
    if (c->streams <= frame->stream / 2) c->streams = frame->stream / 2 + 1;
    c->watchers[frame->stream / 2] = 0;
    c->next = last_event;
  }
  *to++ = 0x88;
  to = put_literal(to, 31, "application/grpc");
  put_frame(answer, (uint32_t)(to - answer) - H2_FRAME_HEAD, H2_HEADERS, H2_END_HEADERS, frame->stream);
  say(c, answer, (size_t)(to - answer));
}

static void answer_put(struct connection *c, const struct frame *frame) {
  uint8_t answer[64], *to = put_frame(answer, GRPC_HEAD, H2_DATA, 0, frame->stream);
  to = put_window(put_grpc(to, 0), 0, frame->length);
  publish(frame->payload + GRPC_HEAD, frame->length - GRPC_HEAD);
  uint8_t *head = to;
  to += H2_FRAME_HEAD;
  *to++ = 0, *to++ = 11;
  memcpy(to, "grpc-status", 11);
  to += 11;
  *to++ = 1, *to++ = '0';
  put_frame(head, (uint32_t)(to - head) - H2_FRAME_HEAD, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, frame->stream);
  say(c, answer, (size_t)(to - answer));
}

static void take(struct connection *c, const struct frame *frame) {
  uint8_t answer[64];
  if (frame->type == H2_SETTINGS && !(frame->flags & H2_ACK)) {
    say(c, answer, (size_t)(put_frame(answer, 0, H2_SETTINGS, H2_ACK, 0) - answer));
  } else if (frame->type == H2_HEADERS) {
    answer_headers(c, frame);
  } else if (frame->type == H2_DATA && c->writes) {
    answer_put(c, frame);
  } else if (frame->type == H2_DATA) {
    answer_creates(c, frame);
  }
}

// Events that are not out yet make the writer wait.
static void take_frames(struct connection *c) {
  uint32_t used = 0, took;
  struct frame frame;
  if (!c->greeted && c->held >= H2_PREFACE_BYTES) {
    uint8_t greeting[64];
    say(c, greeting, (size_t)(put_greeting(greeting) - greeting));
    c->greeted = true;
    used = H2_PREFACE_BYTES;
  }
  while (c->greeted && !(c->writes && last_event - first_event == EVENTS) &&
         (took = take_frame(c->bytes + used, c->held - used, &frame))) {
    take(c, &frame);
    used += took;
  }
  memmove(c->bytes, c->bytes + used, c->held - used);
  c->held -= used;
}

// A run ends when its client goes, and the program with it.
static void readable(struct connection *c) {
  for (;;) {
    if (c->capacity - c->held < KEPT_BYTES) {
      c->capacity = c->held + 2 * KEPT_BYTES;
      c->bytes = reserve(c->bytes, c->capacity);
    }
    ssize_t n = recv(c->fd, c->bytes + c->held, c->capacity - c->held, 0);
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) {
      if (c->streams) exit(0);
      return;
    }
    c->held += (uint32_t)n;
    take_frames(c);
  }
  if (c->held > 0 || c->writes) return;
  free(c->bytes);
  c->bytes = NULL;
  c->capacity = 0;
}

static void accepted(int fd) {
  struct connection *c = calloc(1, sizeof *c);
  if (!c) fail("calloc", ENOMEM);
  set_nodelay(fd);
  c->fd = fd;
  c->after = all;
  all = c;
  arm(c);
}

static void handle(const struct io_uring_cqe *cqe, int listener) {
  struct connection *c = tagged_pair(cqe->user_data);
  switch (tagged_operation(cqe->user_data)) {
    case ACCEPT:
      if (cqe->res >= 0) accepted(cqe->res);
      if (!(cqe->flags & IORING_CQE_F_MORE)) arm_accept(&ring, listener, ACCEPT);
      break;
    case READABLE:
      readable(c);
      if (!(cqe->flags & IORING_CQE_F_MORE)) arm(c);
      break;
    case SENT:
      if (cqe->res < 0) exit(0);
      sent(c);
      break;
  }
}

int main(int count, char **arguments) {
  struct rlimit limit;
  if (count != 2) fail("usage: LISTEN", EINVAL);
  listen_address = parse_address(arguments[1]);
  signal(SIGPIPE, SIG_IGN);
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  open_ring(&ring);
  int listener = open_listener();
  arm_accept(&ring, listener, ACCEPT);
  for (;;) {
    int result = io_uring_submit_and_wait(&ring, 1);
    if (result < 0 && result != -EINTR) fail("io_uring_submit_and_wait", -result);
    struct io_uring_cqe *cqe;
    unsigned head, used = 0;
    io_uring_for_each_cqe(&ring, head, cqe) {
      handle(cqe, listener);
      used++;
    }
    io_uring_cq_advance(&ring, used);
    if (writer && writer->held > 0) take_frames(writer);
  }
}
