// What one connection of the storm does. Both ends work it out from the connection's number and the seed.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum ending {
  BOTH_AT_ONCE,     // both send at the same time and end when done
  CLIENT_FIRST,     // the server sends only after the client's end
  SERVER_FIRST,     // the client sends only after the server's end
  CLIENT_RESETS,    // the client resets in the middle
  SERVER_RESETS,    // the server resets in the middle
  ENDINGS
};

enum { CLIENT = 0, SERVER = 1 };

struct plan {
  uint64_t number, key[2];  // the keys of the bytes that client and server send
  uint64_t bytes[2];        // how many they mean to send
  uint64_t reset_at;        // bytes sent before the reset
  enum ending ending;
  bool slow[2];             // reads slowly
};

struct plan make_plan(uint64_t seed, uint64_t number, uint64_t bytes);
uint64_t mix(uint64_t value);
// Writes `count` bytes of the stream with this key, from `offset` on.
void make_bytes(uint64_t key, uint64_t offset, uint8_t *bytes, uint64_t count);
_Noreturn void die(const char *format, ...);
