// The little of HTTP/2, gRPC and protobuf that the watch client and its floor need: frames are written and taken
// apart by hand, header blocks are fixed literals that no decoder has to keep a table for.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { H2_DATA = 0, H2_HEADERS = 1, H2_RESET = 3, H2_SETTINGS = 4, H2_PING = 6, H2_GOAWAY = 7, H2_WINDOW = 8 };
enum { H2_END_STREAM = 1, H2_ACK = 1, H2_END_HEADERS = 4, H2_PADDED = 8 };
enum { H2_SETTING_STREAMS = 3, H2_SETTING_WINDOW = 4 };
enum { H2_FRAME_HEAD = 9, H2_FRAME_BYTES = 16384, H2_FIRST_WINDOW = 65535, H2_LARGE_WINDOW = 1 << 30 };
enum { GRPC_HEAD = 5 };

static const char h2_preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum { H2_PREFACE_BYTES = sizeof h2_preface - 1 };

struct frame {
  uint32_t length, stream;
  uint8_t type, flags;
  const uint8_t *payload;
};

static inline uint32_t get32(const uint8_t *from) {
  return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static inline uint8_t *put32(uint8_t *to, uint32_t value) {
  to[0] = (uint8_t)(value >> 24), to[1] = (uint8_t)(value >> 16), to[2] = (uint8_t)(value >> 8), to[3] = (uint8_t)value;
  return to + 4;
}

static inline uint8_t *put_frame(uint8_t *to, uint32_t length, unsigned type, unsigned flags, uint32_t stream) {
  to = put32(to, length << 8 | type);
  *to++ = (uint8_t)flags;
  return put32(to, stream);
}

static inline uint8_t *put_window(uint8_t *to, uint32_t stream, uint32_t credit) {
  return put32(put_frame(to, 4, H2_WINDOW, 0, stream), credit);
}

static inline uint8_t *put_setting(uint8_t *to, unsigned name, uint32_t value) {
  *to++ = 0, *to++ = (uint8_t)name;
  return put32(to, value);
}

// Both sides begin with windows so large that flow control is never what is measured.
static inline uint8_t *put_greeting(uint8_t *to) {
  to = put_setting(put_frame(to, 6, H2_SETTINGS, 0, 0), H2_SETTING_WINDOW, H2_LARGE_WINDOW);
  return put_window(to, 0, H2_LARGE_WINDOW - H2_FIRST_WINDOW);
}

// The next whole frame at `bytes`, padding removed; how many bytes it takes, 0 when some are still to come.
static inline uint32_t take_frame(const uint8_t *bytes, uint64_t count, struct frame *frame) {
  if (count < H2_FRAME_HEAD) return 0;
  uint32_t length = get32(bytes) >> 8;
  if (count < H2_FRAME_HEAD + (uint64_t)length) return 0;
  *frame = (struct frame){.length = length, .type = bytes[3], .flags = bytes[4],
                          .stream = get32(bytes + 5) & 0x7fffffff, .payload = bytes + H2_FRAME_HEAD};
  if (frame->type == H2_DATA && (frame->flags & H2_PADDED) && length > 0) {
    uint32_t padding = frame->payload[0] + 1u;
    frame->length -= padding < length ? padding : length;
    frame->payload++;
  }
  return H2_FRAME_HEAD + length;
}

// A field of a header block as a literal that is not put into the table, its name from the static table.
static inline uint8_t *put_literal(uint8_t *to, unsigned name, const char *value) {
  size_t length = strlen(value);
  if (name < 15) {
    *to++ = (uint8_t)name;
  } else {
    *to++ = 15, *to++ = (uint8_t)(name - 15);
  }
  *to++ = (uint8_t)length;
  memcpy(to, value, length);
  return to + length;
}

static inline uint8_t *put_request(uint8_t *to, uint32_t stream, const char *path) {
  uint8_t *head = to;
  to += H2_FRAME_HEAD;
  *to++ = 0x83, *to++ = 0x86;  // :method POST, :scheme http
  to = put_literal(to, 4, path);
  to = put_literal(to, 1, "bench");
  to = put_literal(to, 31, "application/grpc");
  *to++ = 0, *to++ = 2, *to++ = 't', *to++ = 'e', *to++ = 8;
  memcpy(to, "trailers", 8);
  to += 8;
  put_frame(head, (uint32_t)(to - head) - H2_FRAME_HEAD, H2_HEADERS, H2_END_HEADERS, stream);
  return to;
}

static inline uint8_t *put_varint(uint8_t *to, uint64_t value) {
  for (; value >= 128; value >>= 7) *to++ = (uint8_t)(value | 128);
  *to++ = (uint8_t)value;
  return to;
}

static inline uint32_t varint_bytes(uint64_t value) {
  uint32_t count = 1;
  for (; value >= 128; value >>= 7) count++;
  return count;
}

static inline uint8_t *put_bytes(uint8_t *to, unsigned field, const void *bytes, uint32_t count) {
  *to++ = (uint8_t)(field << 3 | 2);
  to = put_varint(to, count);
  memcpy(to, bytes, count);
  return to + count;
}

static inline uint8_t *put_grpc(uint8_t *to, uint32_t length) {
  *to++ = 0;
  return put32(to, length);
}

// One field of a protobuf message: a number, or bytes of which the length is in `value`.
struct field {
  uint32_t number, kind;
  uint64_t value;
  const uint8_t *bytes;
};

static inline bool take_varint(const uint8_t **at, const uint8_t *end, uint64_t *value) {
  *value = 0;
  for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
    uint8_t byte = *(*at)++;
    *value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return true;
  }
  return false;
}

static inline bool take_field(const uint8_t **at, const uint8_t *end, struct field *field) {
  uint64_t key;
  if (*at >= end || !take_varint(at, end, &key)) return false;
  field->number = (uint32_t)(key >> 3), field->kind = key & 7;
  if (field->kind != 0 && field->kind != 2) return false;
  if (!take_varint(at, end, &field->value)) return false;
  field->bytes = *at;
  if (field->kind == 0) return true;
  if (field->value > (uint64_t)(end - *at)) return false;
  *at += field->value;
  return true;
}

// The bytes of the first field of that number, or NULL.
static inline const uint8_t *find_bytes(const uint8_t *at, uint64_t length, uint32_t number, uint64_t *count) {
  const uint8_t *end = at + length;
  for (struct field field; take_field(&at, end, &field);) {
    if (field.number != number || field.kind != 2) continue;
    *count = field.value;
    return field.bytes;
  }
  return NULL;
}
