// What the modes of the load generator share.
#pragma once

#include "histogram.h"
#include "net.h"

struct options {
  struct sockaddr_in address;
  uint32_t connections;  // open connections; in churn mode how many are on their way at a time
  uint32_t message;      // rr: bytes of a request and of its answer
  uint64_t requests;     // rr: round trips, churn: connections; 0 means `seconds` decides
  uint64_t bytes;        // bulk: bytes a connection in each direction; 0 means `seconds` decides
  double seconds;
  bool down, up;         // bulk: the directions
};

void run_bulk(const struct options *options);
void run_rr(const struct options *options);
void run_churn(const struct options *options);
void run_idle(const struct options *options);

// Opens one connection and waits until it stands.
int open_connection(const struct options *options);
void send_all(int fd, const void *bytes, size_t count);

static inline uint64_t deadline_of(const struct options *options, uint64_t start, uint64_t limit) {
  return limit ? UINT64_MAX : start + (uint64_t)(options->seconds * 1e9);
}
