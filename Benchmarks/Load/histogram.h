// A log-linear histogram of nanoseconds in the manner of HdrHistogram: 1024 steps in every power of two, so a
// value is kept to better than 0.1 % (three digits) from 1 ns up to about 18 minutes.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { HISTOGRAM_STEPS = 1024, HISTOGRAM_SLOTS = 32 * HISTOGRAM_STEPS };

struct histogram {
  uint64_t total, max;
  uint64_t slots[HISTOGRAM_SLOTS];
};

static inline uint32_t histogram_slot(uint64_t value) {
  if (value < HISTOGRAM_STEPS) return (uint32_t)value;
  uint32_t shift = (uint32_t)(63 - __builtin_clzll(value)) - 10;
  uint64_t slot = (uint64_t)shift * HISTOGRAM_STEPS + (value >> shift);
  return slot < HISTOGRAM_SLOTS ? (uint32_t)slot : HISTOGRAM_SLOTS - 1;
}

// The middle of the range that a slot stands for.
static inline uint64_t histogram_value(uint32_t slot) {
  if (slot < 2 * HISTOGRAM_STEPS) return slot;
  uint32_t shift = slot / HISTOGRAM_STEPS - 1;
  uint64_t low = (uint64_t)(slot - shift * HISTOGRAM_STEPS) << shift;
  return low + ((uint64_t)1 << shift) / 2;
}

static inline void histogram_add(struct histogram *h, uint64_t value) {
  h->slots[histogram_slot(value)]++;
  h->total++;
  if (value > h->max) h->max = value;
}

// The smallest value that at least `fraction` of all values do not exceed.
static inline uint64_t histogram_quantile(const struct histogram *h, double fraction) {
  uint64_t wanted = (uint64_t)(fraction * (double)h->total + 0.5), seen = 0;
  if (wanted == 0) wanted = 1;
  for (uint32_t slot = 0; slot < HISTOGRAM_SLOTS; slot++) {
    seen += h->slots[slot];
    if (seen >= wanted) return histogram_value(slot) < h->max ? histogram_value(slot) : h->max;
  }
  return h->max;
}

// Prints the members of a JSON object, in microseconds, without its braces.
static inline void histogram_print(const struct histogram *h) {
  printf("\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.2f",
         (double)histogram_quantile(h, 0.50) / 1e3, (double)histogram_quantile(h, 0.99) / 1e3,
         (double)histogram_quantile(h, 0.999) / 1e3, (double)h->max / 1e3);
}
