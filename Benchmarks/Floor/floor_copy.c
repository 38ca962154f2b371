// The least a copying relay can do on io_uring: multishot receive into a ring of shared buffers, one gathered
// send for what a direction received in a turn, one io_uring_enter a turn. A send that takes everything posts
// no completion, so its buffers are free again after the enter. For benchmark traffic only.
#include "floor.h"

enum { CLOSE, ACCEPT, CONNECT, RECEIVE, SEND, RESEND };
enum { BUFFERS = 256, BUFFER_BYTES = 4096, GROUP = 1, NONE = 0xffff };
enum { ARMED = 1, ENDED = 2, DONE = 4, READY = 8, SENDING = 16, SHORT = 32, BLOCKED = 64, STARVED = 128 };

// Direction i reads fd[i] and writes fd[1 - i].
struct direction {
  uint16_t queue, queue_last;  // received, not in a send yet
  uint16_t flight;             // in the send that is under way
  uint16_t flags;
  int32_t sent;                // of a short send
};

struct pair {
  int fd[2];
  struct direction direction[2];
  bool dead;
};

struct list {
  struct { struct pair *pair; unsigned side; } *items;
  unsigned count, capacity;
};

struct worker {
  struct io_uring ring;
  struct io_uring_buf_ring *buffers;
  unsigned free_buffers, returned;
  uint16_t next[BUFFERS];
  struct iovec span[BUFFERS];      // what is left to send of every buffer
  struct list ready, sending, starved;
  struct iovec vectors[BUFFERS];   // of the sends of one turn
  struct msghdr messages[BUFFERS];
  unsigned used_vectors, used_messages;
  bool ending;                     // a direction is sending its last bytes
  int listener;
  char memory[BUFFERS][BUFFER_BYTES];
};

static void append(struct list *list, struct pair *pair, unsigned side) {
  if (list->count == list->capacity) {
    list->capacity = list->capacity ? 2 * list->capacity : 64;
    list->items = realloc(list->items, list->capacity * sizeof *list->items);
    if (!list->items) fail("realloc", ENOMEM);
  }
  list->items[list->count].pair = pair;
  list->items[list->count++].side = side;
}

static void recycle(struct worker *w, uint16_t buffer) {
  io_uring_buf_ring_add(w->buffers, w->memory[buffer], BUFFER_BYTES, buffer,
                        io_uring_buf_ring_mask(BUFFERS), (int)w->returned++);
  w->free_buffers++;
}

static void publish_buffers(struct worker *w) {
  if (w->returned) io_uring_buf_ring_advance(w->buffers, (int)w->returned);
  w->returned = 0;
}

static void recycle_all(struct worker *w, uint16_t *first) {
  for (; *first != NONE; *first = w->next[*first]) recycle(w, *first);
}

static void arm_receive(struct worker *w, struct pair *pair, unsigned side) {
  struct io_uring_sqe *sqe = next_sqe(&w->ring);
  io_uring_prep_recv_multishot(sqe, pair->fd[side], NULL, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = GROUP;
  io_uring_sqe_set_data64(sqe, tag(pair, RECEIVE, side));
  pair->direction[side].flags |= ARMED;
}

static void begin(struct worker *w, int client) {
  struct pair *pair = calloc(1, sizeof *pair);
  if (!pair) fail("calloc", ENOMEM);
  set_nodelay(client);
  pair->fd[0] = client;
  pair->fd[1] = open_upstream();
  for (int i = 0; i < 2; i++) pair->direction[i].queue = pair->direction[i].flight = NONE;
  arm_connect(&w->ring, pair->fd[1], pair, CONNECT);
}

static bool at_rest(const struct direction *d) {
  return !(d->flags & (ARMED | READY | SENDING | BLOCKED | STARVED));
}

static void end_if_done(struct worker *w, struct pair *pair) {
  struct direction *d = pair->direction;
  if (!pair->dead && !(d[0].flags & d[1].flags & DONE)) return;
  if (!at_rest(&d[0]) || !at_rest(&d[1])) return;
  close_in_ring(&w->ring, pair->fd[0]);
  close_in_ring(&w->ring, pair->fd[1]);
  free(pair);
}

// Both sockets are shut, so that every request on them ends; the last one frees the connection.
static void kill_pair(struct pair *pair) {
  pair->dead = true;
  shutdown(pair->fd[0], SHUT_RDWR);
  shutdown(pair->fd[1], SHUT_RDWR);
}

// The input of this direction ended and all of it is sent: pass the end on, or end the connection.
static void finish_if_drained(struct worker *w, struct pair *pair, unsigned side) {
  struct direction *d = &pair->direction[side];
  bool drained = d->queue == NONE && d->flight == NONE;
  if (!pair->dead && (d->flags & ENDED) && drained && !(d->flags & DONE)) {
    d->flags |= DONE;
    if (!(pair->direction[1 - side].flags & DONE)) shutdown(pair->fd[1 - side], SHUT_WR);
  }
  end_if_done(w, pair);
}

static void make_ready(struct worker *w, struct pair *pair, unsigned side) {
  struct direction *d = &pair->direction[side];
  if (d->flags & (READY | SENDING | BLOCKED)) return;
  d->flags |= READY;
  append(&w->ready, pair, side);
}

static void received(struct worker *w, struct pair *pair, unsigned side, struct io_uring_cqe *cqe) {
  struct direction *d = &pair->direction[side];
  if (!(cqe->flags & IORING_CQE_F_MORE)) d->flags &= (uint16_t)~ARMED;
  if (cqe->flags & IORING_CQE_F_BUFFER) {
    uint16_t buffer = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    w->free_buffers--;
    if (pair->dead || cqe->res <= 0) {
      recycle(w, buffer);
    } else {
      w->span[buffer] = (struct iovec){w->memory[buffer], (size_t)cqe->res};
      w->next[buffer] = NONE;
      if (d->queue == NONE) d->queue = buffer;
      else w->next[d->queue_last] = buffer;
      d->queue_last = buffer;
      make_ready(w, pair, side);
    }
  }
  if (cqe->res < 0 && cqe->res != -ENOBUFS) kill_pair(pair);
  if (cqe->res == 0) d->flags |= ENDED;
  if (!(d->flags & (ARMED | ENDED)) && !pair->dead) {
    d->flags |= STARVED;
    append(&w->starved, pair, side);
  }
  if (!(d->flags & (READY | SENDING))) finish_if_drained(w, pair, side);
}

// Sends the flight of a direction: without waiting in a turn of its own, or until all is sent when blocked.
static void send_flight(struct worker *w, struct pair *pair, unsigned side, bool wait) {
  struct direction *d = &pair->direction[side];
  struct io_uring_sqe *sqe = next_sqe(&w->ring);
  int flags = MSG_WAITALL | MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT), fd = pair->fd[1 - side];
  if (w->next[d->flight] == NONE) {
    io_uring_prep_send(sqe, fd, w->span[d->flight].iov_base, w->span[d->flight].iov_len, flags);
  } else {
    struct msghdr *message = &w->messages[w->used_messages++];
    *message = (struct msghdr){.msg_iov = &w->vectors[w->used_vectors]};
    for (uint16_t b = d->flight; b != NONE; b = w->next[b], message->msg_iovlen++)
      w->vectors[w->used_vectors++] = w->span[b];
    io_uring_prep_sendmsg(sqe, fd, message, (unsigned)flags);
  }
  io_uring_sqe_set_data64(sqe, tag(pair, wait ? RESEND : SEND, side));
  if (!wait) sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

static void take_sent(struct worker *w, struct direction *d, size_t sent) {
  while (d->flight != NONE && sent >= w->span[d->flight].iov_len) {
    uint16_t buffer = d->flight;
    sent -= w->span[buffer].iov_len;
    d->flight = w->next[buffer];
    recycle(w, buffer);
  }
  if (d->flight == NONE) return;
  w->span[d->flight].iov_base = (char *)w->span[d->flight].iov_base + sent;
  w->span[d->flight].iov_len -= sent;
}

// The rest of a short send is on its way, or the connection is over.
static void resent(struct worker *w, struct pair *pair, unsigned side, int result) {
  struct direction *d = &pair->direction[side];
  d->flags &= (uint16_t)~BLOCKED;
  if (result < 0) kill_pair(pair);
  if (pair->dead) {
    recycle_all(w, &d->flight);
  } else {
    take_sent(w, d, (size_t)result);
    if (d->flight != NONE) {
      d->flags |= BLOCKED;
      send_flight(w, pair, side, true);
      return;
    }
  }
  if (d->queue != NONE) make_ready(w, pair, side);
  else finish_if_drained(w, pair, side);
}

// After the enter: a send without a completion took everything.
static void settle(struct worker *w) {
  for (unsigned i = 0; i < w->sending.count; i++) {
    struct pair *pair = w->sending.items[i].pair;
    unsigned side = w->sending.items[i].side;
    struct direction *d = &pair->direction[side];
    bool is_short = d->flags & SHORT;
    d->flags &= (uint16_t)~(SENDING | SHORT);
    if (is_short && d->sent < 0 && d->sent != -EAGAIN) kill_pair(pair);
    if (is_short && !pair->dead) {
      take_sent(w, d, d->sent > 0 ? (size_t)d->sent : 0);
      d->flags |= BLOCKED;
      send_flight(w, pair, side, true);
      continue;
    }
    recycle_all(w, &d->flight);
    if (d->queue != NONE) make_ready(w, pair, side);
    else finish_if_drained(w, pair, side);
  }
  w->sending.count = 0;
}

static void send_ready(struct worker *w) {
  for (unsigned i = 0; i < w->ready.count; i++) {
    struct pair *pair = w->ready.items[i].pair;
    unsigned side = w->ready.items[i].side;
    struct direction *d = &pair->direction[side];
    d->flags &= (uint16_t)~READY;
    if (pair->dead) {
      recycle_all(w, &d->queue);
      end_if_done(w, pair);
      continue;
    }
    d->flight = d->queue;
    d->queue = NONE;
    d->flags |= SENDING;
    if (d->flags & ENDED) w->ending = true;
    send_flight(w, pair, side, false);
    append(&w->sending, pair, side);
  }
  w->ready.count = 0;
}

// Receives that ran out of buffers start again once there are some.
static void feed_starved(struct worker *w) {
  if (w->free_buffers == 0) return;
  for (unsigned i = 0; i < w->starved.count; i++) {
    struct pair *pair = w->starved.items[i].pair;
    pair->direction[w->starved.items[i].side].flags &= (uint16_t)~STARVED;
    if (pair->dead) end_if_done(w, pair);
    else arm_receive(w, pair, w->starved.items[i].side);
  }
  w->starved.count = 0;
}

static void connected(struct worker *w, struct pair *pair, int result) {
  if (result < 0) {
    pair->dead = true;
    end_if_done(w, pair);
    return;
  }
  arm_receive(w, pair, 0);
  arm_receive(w, pair, 1);
}

static void handle(struct worker *w, struct io_uring_cqe *cqe) {
  struct pair *pair = tagged_pair(cqe->user_data);
  unsigned side = tagged_side(cqe->user_data);
  switch (tagged_operation(cqe->user_data)) {
    case ACCEPT:
      if (!(cqe->flags & IORING_CQE_F_MORE)) arm_accept(&w->ring, w->listener, ACCEPT);
      if (cqe->res >= 0) begin(w, cqe->res);
      break;
    case CONNECT: connected(w, pair, cqe->res); break;
    case RECEIVE: received(w, pair, side, cqe); break;
    case SEND:
      pair->direction[side].flags |= SHORT;
      pair->direction[side].sent = cqe->res;
      break;
    case RESEND: resent(w, pair, side, cqe->res); break;
  }
}

// A send that succeeds wakes nobody. So do not sleep on sends that something hangs on: the end of a
// direction, or the buffers that a starved receive needs.
static bool may_wait(const struct worker *w) {
  return w->sending.count == 0 || !(w->ending || w->starved.count > 0);
}

static void *work(void *unused) {
  (void)unused;
  struct worker *w = aligned_alloc(4096, (sizeof *w + 4095) & ~(size_t)4095);
  if (!w) fail("aligned_alloc", ENOMEM);
  memset(w, 0, sizeof *w);
  open_ring(&w->ring);
  w->buffers = aligned_alloc(4096, BUFFERS * sizeof(struct io_uring_buf));
  io_uring_buf_ring_init(w->buffers);
  struct io_uring_buf_reg group = {
      .ring_addr = (uintptr_t)w->buffers, .ring_entries = BUFFERS, .bgid = GROUP};
  int result = io_uring_register_buf_ring(&w->ring, &group, 0);
  if (result < 0) fail("io_uring_register_buf_ring", -result);
  for (uint16_t i = 0; i < BUFFERS; i++) recycle(w, i);
  publish_buffers(w);
  w->listener = open_listener();
  arm_accept(&w->ring, w->listener, ACCEPT);
  for (;;) {
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    io_uring_submit_and_wait(&w->ring, may_wait(w) ? 1 : 0);
    w->ending = false;
    w->used_vectors = w->used_messages = 0;
    io_uring_for_each_cqe(&w->ring, head, cqe) {
      handle(w, cqe);
      seen++;
    }
    io_uring_cq_advance(&w->ring, seen);
    settle(w);
    send_ready(w);
    publish_buffers(w);
    feed_starved(w);
  }
  return NULL;
}

int main(int count, char **arguments) { return run_threads(count, arguments, work); }
