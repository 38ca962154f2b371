#include "storm.h"

#include <string.h>

uint64_t mix(uint64_t value) {  // splitmix64's finaliser
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

struct plan make_plan(uint64_t seed, uint64_t number, uint64_t bytes) {
  uint64_t draw = mix(seed + number * 0x9e3779b97f4a7c15u);
  struct plan plan = {.number = number, .bytes = {bytes, bytes}, .key = {mix(draw + 1), mix(draw + 2)}};
  plan.ending = number % 8 < 4 ? BOTH_AT_ONCE : (enum ending)(number % 4 + 1);
  plan.reset_at = mix(draw + 3) % bytes;
  plan.slow[CLIENT] = number % 16 == 3 || number % 16 == 4;
  plan.slow[SERVER] = number % 16 == 7 || number % 16 == 8;
  return plan;
}

void make_bytes(uint64_t key, uint64_t offset, uint8_t *bytes, uint64_t count) {
  uint64_t made = 0;
  while (made < count) {
    uint64_t word = mix(key + ((offset + made) / 8) * 0x9e3779b97f4a7c15u), skip = (offset + made) % 8;
    uint64_t part = 8 - skip < count - made ? 8 - skip : count - made;
    memcpy(bytes + made, (uint8_t *)&word + skip, part);
    made += part;
  }
}
