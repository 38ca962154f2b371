// c-ares 1.18, and the names that Swift needs of it: numbers that are macros, and the record type for
// services.
#pragma once
// System headers come from there, so that their names have one owner whichever modules a Swift file imports.
#include "curing.h"
#include <ares.h>

enum { RW_DNS_CLASS_IN = 1, RW_DNS_TYPE_SRV = 33 };

// Writes one entry of a server list. Zero stands for the default port.
static inline void rw_ares_server(
    struct ares_addr_port_node *node, int family, const void *address, unsigned short port,
    struct ares_addr_port_node *next) {
  *node = (struct ares_addr_port_node){.next = next, .family = family, .udp_port = port, .tcp_port = port};
  __builtin_memcpy(&node->addr, address, family == 2 /* AF_INET */ ? 4 : 16);
}
