// Bulk transfer. Downwards the server sends, upwards it counts and returns a receipt, both is both at once.
// With a count of bytes every byte is accounted for; with seconds the run stops where it stands.
#include "load.h"

struct stream {
  int fd;
  bool sending, open;
  uint64_t sent, received;
  uint8_t tail[RECEIPT_BYTES];  // the last bytes received: the receipt of the server
};

static char chunk[CHUNK_BYTES];

static void remember_tail(struct stream *stream, const char *bytes, size_t count) {
  if (count >= RECEIPT_BYTES) {
    memcpy(stream->tail, bytes + count - RECEIPT_BYTES, RECEIPT_BYTES);
  } else {
    memmove(stream->tail, stream->tail + count, RECEIPT_BYTES - count);
    memcpy(stream->tail + RECEIPT_BYTES - count, bytes, count);
  }
}

static void open_stream(struct stream *stream, const struct options *options, int epoll) {
  char header[HEADER_BYTES] = {options->up ? (options->down ? MODE_BOTH : MODE_SINK) : MODE_SOURCE};
  uint64_t from_server = !options->down ? 0 : options->bytes ? options->bytes : UINT64_MAX;
  memcpy(header + 1, &from_server, sizeof from_server);
  stream->fd = open_connection(options);
  send_all(stream->fd, header, sizeof header);
  set_nonblocking(stream->fd);
  stream->open = true;
  stream->sending = options->up;
  watch(epoll, EPOLL_CTL_ADD, stream->fd, EPOLLIN | (options->up ? EPOLLOUT : 0u), stream);
}

static void end_sending(struct stream *stream, int epoll) {
  stream->sending = false;
  shutdown(stream->fd, SHUT_WR);
  watch(epoll, EPOLL_CTL_MOD, stream->fd, EPOLLIN, stream);
}

static void push(struct stream *stream, const struct options *options, int epoll) {
  uint64_t left = options->bytes ? options->bytes - stream->sent : CHUNK_BYTES;
  ssize_t n = send(stream->fd, chunk, left < CHUNK_BYTES ? left : CHUNK_BYTES, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN) die("bulk send: %s", strerror(errno));
  if (n > 0) stream->sent += (uint64_t)n;
  if (options->bytes && stream->sent == options->bytes) end_sending(stream, epoll);
}

static void check(const struct stream *stream, const struct options *options) {
  uint64_t receipt = stream->sent, expected = (options->down ? options->bytes : 0);
  if (options->up) memcpy(&receipt, stream->tail, sizeof receipt);
  if (receipt != stream->sent)
    die("the server received %llu of %llu bytes", (unsigned long long)receipt,
        (unsigned long long)stream->sent);
  if (options->up) expected += RECEIPT_BYTES;
  if (options->bytes && stream->received != expected)
    die("received %llu of %llu bytes", (unsigned long long)stream->received, (unsigned long long)expected);
}

// True when the stream came to its end.
static bool pull(struct stream *stream, const struct options *options) {
  ssize_t n = recv(stream->fd, chunk, sizeof chunk, 0);
  if (n < 0 && errno == EAGAIN) return false;
  if (n < 0) die("bulk receive: %s", strerror(errno));
  if (n > 0) {
    stream->received += (uint64_t)n;
    remember_tail(stream, chunk, (size_t)n);
    return false;
  }
  check(stream, options);
  close(stream->fd);
  stream->open = false;
  return true;
}

// The end of a run by time: senders close their side and wait for the receipt, receivers just stop.
static uint32_t stop_all(struct stream *streams, const struct options *options, int epoll) {
  uint32_t active = 0;
  for (uint32_t i = 0; i < options->connections; i++) {
    if (!streams[i].open || !options->up) continue;
    if (streams[i].sending) end_sending(&streams[i], epoll);
    active++;
  }
  return active;
}

void run_bulk(const struct options *options) {
  struct epoll_event events[256];
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct stream *streams = calloc(options->connections, sizeof *streams);
  if (!streams) die("out of memory");
  uint64_t start = now_ns(), deadline = deadline_of(options, start, options->bytes), bytes = 0;
  for (uint32_t i = 0; i < options->connections; i++) open_stream(&streams[i], options, epoll);
  uint32_t active = options->connections;
  while (active > 0) {
    int ready = epoll_wait(epoll, events, 256, 100);
    for (int i = 0; i < ready; i++) {
      struct stream *stream = events[i].data.ptr;
      if (stream->sending && (events[i].events & EPOLLOUT)) push(stream, options, epoll);
      if ((events[i].events & ~(uint32_t)EPOLLOUT) && pull(stream, options)) active--;
    }
    if (now_ns() < deadline) continue;
    active = stop_all(streams, options, epoll);
    deadline = UINT64_MAX;
  }
  double seconds = (double)(now_ns() - start) / 1e9;
  for (uint32_t i = 0; i < options->connections; i++) bytes += streams[i].sent + streams[i].received;
  if (options->up) bytes -= (uint64_t)options->connections * RECEIPT_BYTES;
  printf("{\"mode\":\"bulk\",\"connections\":%u,\"bytes\":%llu,\"seconds\":%.6f,\"gb_per_second\":%.4f}\n",
         options->connections, (unsigned long long)bytes, seconds, (double)bytes / 1e9 / seconds);
}
