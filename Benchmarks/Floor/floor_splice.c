// The least a splicing relay can do: the ring polls for readiness, splice(2) moves the pages on the thread of
// the ring. A pipe is held only while it has bytes. For benchmark traffic only.
#include "floor.h"

enum { CLOSE, ACCEPT, CONNECT, READABLE, WRITABLE };
// The most an ordinary user may ask for. With 256 KiB one bulk connection costs half as much again, because a
// pipe counts fragments, not bytes, and is full long before.
enum { PIPE_BYTES = 1024 * 1024 };
enum { ARMED = 1, DONE = 2 };

struct pipe { int in, out; };

// Direction i moves from fd[i] to fd[1 - i].
struct direction {
  uint32_t flags, held;  // held: bytes in the pipe
  struct pipe pipe;
};

struct pair {
  int fd[2];
  struct direction direction[2];
  bool dead;
};

struct worker {
  struct io_uring ring;
  int listener;
  struct pipe *pipes;
  unsigned free_pipes, pipe_capacity;
};

static struct pipe take_pipe(struct worker *w) {
  if (w->free_pipes > 0) return w->pipes[--w->free_pipes];
  int fds[2];
  if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) fail("pipe", errno);
  if (fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES) < PIPE_BYTES) fail("F_SETPIPE_SZ", errno);
  return (struct pipe){.in = fds[1], .out = fds[0]};
}

static void return_pipe(struct worker *w, struct pipe pipe) {
  if (w->free_pipes == w->pipe_capacity) {
    w->pipe_capacity = w->pipe_capacity ? 2 * w->pipe_capacity : 16;
    w->pipes = realloc(w->pipes, w->pipe_capacity * sizeof *w->pipes);
    if (!w->pipes) fail("realloc", ENOMEM);
  }
  w->pipes[w->free_pipes++] = pipe;
}

static void arm(struct worker *w, struct pair *pair, unsigned side, unsigned operation) {
  struct io_uring_sqe *sqe = next_sqe(&w->ring);
  bool readable = operation == READABLE;
  io_uring_prep_poll_add(sqe, pair->fd[readable ? side : 1 - side], readable ? POLLIN : POLLOUT);
  io_uring_sqe_set_data64(sqe, tag(pair, operation, side));
  pair->direction[side].flags |= ARMED;
}

static void begin(struct worker *w, int client) {
  struct pair *pair = calloc(1, sizeof *pair);
  if (!pair) fail("calloc", ENOMEM);
  set_nodelay(client);
  pair->fd[0] = client;
  pair->fd[1] = open_upstream();
  arm_connect(&w->ring, pair->fd[1], pair, CONNECT);
}

static void end_if_done(struct worker *w, struct pair *pair) {
  struct direction *d = pair->direction;
  if (!pair->dead && !(d[0].flags & d[1].flags & DONE)) return;
  if ((d[0].flags | d[1].flags) & ARMED) return;
  for (int i = 0; i < 2; i++) {
    close_in_ring(&w->ring, pair->fd[i]);
    if (d[i].held == 0) continue;
    close(d[i].pipe.in);
    close(d[i].pipe.out);
  }
  free(pair);
}

static void kill_pair(struct worker *w, struct pair *pair) {
  pair->dead = true;
  shutdown(pair->fd[0], SHUT_RDWR);
  shutdown(pair->fd[1], SHUT_RDWR);
  end_if_done(w, pair);
}

// Empties the pipe into the socket as far as it goes, then waits for room or for the next bytes.
static void drain(struct worker *w, struct pair *pair, unsigned side) {
  struct direction *d = &pair->direction[side];
  while (d->held > 0) {
    ssize_t n = splice(d->pipe.out, NULL, pair->fd[1 - side], NULL, d->held,
                       SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (n < 0 && errno == EAGAIN) {
      arm(w, pair, side, WRITABLE);
      return;
    }
    if (n <= 0) {
      kill_pair(w, pair);
      return;
    }
    d->held -= (uint32_t)n;
  }
  return_pipe(w, d->pipe);
  arm(w, pair, side, READABLE);
}

static void fill(struct worker *w, struct pair *pair, unsigned side) {
  struct direction *d = &pair->direction[side];
  struct pipe pipe = take_pipe(w);
  ssize_t n = splice(pair->fd[side], NULL, pipe.in, NULL, PIPE_BYTES, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
  if (n > 0) {
    d->pipe = pipe;
    d->held = (uint32_t)n;
    drain(w, pair, side);
    return;
  }
  return_pipe(w, pipe);
  if (n < 0 && errno == EAGAIN) {
    arm(w, pair, side, READABLE);
  } else if (n < 0) {
    kill_pair(w, pair);
  } else {
    d->flags |= DONE;
    if (!(pair->direction[1 - side].flags & DONE)) shutdown(pair->fd[1 - side], SHUT_WR);
    end_if_done(w, pair);
  }
}

static void ready(struct worker *w, struct pair *pair, unsigned side, bool readable) {
  pair->direction[side].flags &= ~(uint32_t)ARMED;
  if (pair->dead) end_if_done(w, pair);
  else if (readable) fill(w, pair, side);
  else drain(w, pair, side);
}

static void connected(struct worker *w, struct pair *pair, int result) {
  if (result < 0) {
    pair->dead = true;
    end_if_done(w, pair);
    return;
  }
  arm(w, pair, 0, READABLE);
  arm(w, pair, 1, READABLE);
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
    case READABLE: ready(w, pair, side, true); break;
    case WRITABLE: ready(w, pair, side, false); break;
  }
}

static void *work(void *unused) {
  (void)unused;
  struct worker *w = calloc(1, sizeof *w);
  if (!w) fail("calloc", ENOMEM);
  open_ring(&w->ring);
  w->listener = open_listener();
  arm_accept(&w->ring, w->listener, ACCEPT);
  for (;;) {
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    io_uring_submit_and_wait(&w->ring, 1);
    io_uring_for_each_cqe(&w->ring, head, cqe) {
      handle(w, cqe);
      seen++;
    }
    io_uring_cq_advance(&w->ring, seen);
  }
  return NULL;
}

int main(int count, char **arguments) { return run_threads(count, arguments, work); }
