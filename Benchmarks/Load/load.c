// The load generator of the gateway benchmark. It prints one line of JSON and ends by itself.
#include "load.h"

#include <getopt.h>
#include <signal.h>

static const char usage[] =
    "usage: load bulk|rr|churn|idle --addr HOST:PORT [options]\n"
    "  --connections N   open connections (churn: in parallel), default 1\n"
    "  --direction D     bulk: down, up or both, default down\n"
    "  --bytes N         bulk: bytes a connection in each direction\n"
    "  --size N          rr: bytes of a message, default 64\n"
    "  --requests N      rr: round trips in all; churn: connections in all\n"
    "  --seconds S       length of the run where no count is given, default 1\n"
    "  --cpu N           stay on this processor\n"
    "  --max-seconds S   give up after this time, default 60";

int open_connection(const struct options *options) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket: %s", strerror(errno));
  if (connect(fd, (const struct sockaddr *)&options->address, sizeof options->address) != 0)
    die("connect: %s", strerror(errno));
  set_nodelay(fd);
  return fd;
}

void send_all(int fd, const void *bytes, size_t count) {
  const char *next = bytes;
  while (count > 0) {
    ssize_t n = send(fd, next, count, MSG_NOSIGNAL);
    if (n < 0) die("send: %s", strerror(errno));
    next += n;
    count -= (size_t)n;
  }
}

static void give_up(int signal_number) {
  (void)signal_number;
  static const char text[] = "load: not done within --max-seconds\n";
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(3);
  _exit(2);
}

static void set_direction(struct options *options, const char *text) {
  options->down = strcmp(text, "up") != 0;
  options->up = strcmp(text, "down") != 0;
  if (options->down && options->up && strcmp(text, "both") != 0) die("%s", usage);
}

static struct options parse(int count, char **arguments) {
  static const struct option known[] = {
      {"addr", required_argument, 0, 'a'},     {"connections", required_argument, 0, 'c'},
      {"direction", required_argument, 0, 'd'}, {"bytes", required_argument, 0, 'b'},
      {"size", required_argument, 0, 's'},     {"requests", required_argument, 0, 'r'},
      {"seconds", required_argument, 0, 't'},  {"cpu", required_argument, 0, 'p'},
      {"max-seconds", required_argument, 0, 'm'}, {0, 0, 0, 0}};
  struct options options = {.connections = 1, .message = 64, .seconds = 1, .down = true};
  unsigned limit = 60;
  int option;
  while ((option = getopt_long(count, arguments, "", known, NULL)) != -1) {
    switch (option) {
      case 'a': options.address = parse_address(optarg); break;
      case 'c': options.connections = (uint32_t)strtoul(optarg, NULL, 10); break;
      case 'd': set_direction(&options, optarg); break;
      case 'b': options.bytes = strtoull(optarg, NULL, 10); break;
      case 's': options.message = (uint32_t)strtoul(optarg, NULL, 10); break;
      case 'r': options.requests = strtoull(optarg, NULL, 10); break;
      case 't': options.seconds = strtod(optarg, NULL); break;
      case 'p': pin_to_cpu(atoi(optarg)); break;
      case 'm': limit = (unsigned)strtoul(optarg, NULL, 10); break;
      default: die("%s", usage);
    }
  }
  if (!options.address.sin_port || !options.connections || !options.message) die("%s", usage);
  signal(SIGALRM, give_up);
  alarm(limit);
  return options;
}

int main(int count, char **arguments) {
  if (count < 2) die("%s", usage);
  raise_descriptor_limit();
  struct options options = parse(count - 1, arguments + 1);
  if (strcmp(arguments[1], "bulk") == 0) run_bulk(&options);
  else if (strcmp(arguments[1], "rr") == 0) run_rr(&options);
  else if (strcmp(arguments[1], "churn") == 0) run_churn(&options);
  else if (strcmp(arguments[1], "idle") == 0) run_idle(&options);
  else die("%s", usage);
  return 0;
}
