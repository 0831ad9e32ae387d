/* The load: callers that ask again as soon as they have their answer, and check every answer.
 *
 *     load PORT < what follows
 *
 * Read from stdin, all numbers in decimal: "REQUESTS\n"; for each request, which is one caller with a connection of
 * its own, "LENGTH\n" and its bytes; "TIMES LENGTH\n" and the bytes of the needle: an answer is right if it has the id
 * of its request and so often the needle (0: at least once). Where HOLE stands in them, the id of the request is put.
 * Then "ready\n" is written, and for each further line "MICROSECONDS\n" the callers ask for so long, and all answers
 * are waited for: "SECONDS COUNT\n" and COUNT latencies as doubles, in seconds. An answer that is wrong is written as
 * "wrong TEXT\n", and ends the program; so does the end of stdin.
 *
 * It is in C because the load runs on one core with the upstream: what it takes for a call, nginx cannot show.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HOLE "9999999999"
#define DIGITS 10
#define HOLES 8          /* in one text; more are refused */
#define PREFIX 32        /* so much of a needle is searched for; the rest is compared where it was found */
#define EVENTS 256
#define FIRST_ID 1000000000ull

typedef struct {
    char *bytes;
    size_t length;
    size_t holes[HOLES];
    int count;
} Text;

typedef struct {
    int fd;
    Text request;
    size_t written;
    char id[DIGITS + 1];
    double asked;
    char *received;
    size_t size, room;
    size_t end;          /* of the answer that is being received; 0 until its head is there */
    size_t body;
} Caller;

static Text answer_id = {.bytes = (char[]){"\"id\":" HOLE}, .length = 5 + DIGITS, .holes = {5}, .count = 1};
static Text needle;
static long times;
static unsigned long long ids = FIRST_ID;
static int poll_fd;

static void fail(const char *what, const char *text, size_t length) {
    printf("wrong %s: ", what);
    for (size_t at = 0; at < length && at < 300; at++) putchar(text[at] < ' ' ? ' ' : text[at]);
    printf("\n");
    fflush(stdout);
    exit(1);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void *room_for(void *old, size_t bytes) {
    void *found = realloc(old, bytes);
    if (found == NULL) fail("memory", "", 0);
    return found;
}

/* The numbers of the next line of stdin; 0 at its end. */
static int numbers(int wanted, ...) {
    char line[128];
    va_list list;
    if (fgets(line, sizeof line, stdin) == NULL) return 0;
    va_start(list, wanted);
    char *at = line;
    for (int index = 0; index < wanted; index++) *va_arg(list, long *) = strtol(at, &at, 10);
    va_end(list);
    return 1;
}

static Text text(long length) {
    Text made = {.bytes = room_for(NULL, (size_t)length + 1), .length = (size_t)length};
    if (fread(made.bytes, 1, made.length, stdin) != made.length) fail("input", "", 0);
    for (char *at = made.bytes; (at = memmem(at, made.length - (size_t)(at - made.bytes), HOLE, DIGITS)); at += DIGITS) {
        if (made.count == HOLES) fail("input", "too many holes", 14);
        made.holes[made.count++] = (size_t)(at - made.bytes);
    }
    return made;
}

static void fill(Text *text, const char *id) {
    for (int hole = 0; hole < text->count; hole++) memcpy(text->bytes + text->holes[hole], id, DIGITS);
}

static void watch(Caller *caller, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = caller};
    epoll_ctl(poll_fd, how, caller->fd, &event);
}

/* Send what is left of the request. A large one does not fit at once. */
static void push(Caller *caller) {
    while (caller->written < caller->request.length) {
        ssize_t sent = send(caller->fd, caller->request.bytes + caller->written,
                            caller->request.length - caller->written, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            watch(caller, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            return;
        }
        if (sent < 0) fail("connection", strerror(errno), strlen(strerror(errno)));
        caller->written += (size_t)sent;
    }
}

static void ask(Caller *caller) {
    snprintf(caller->id, sizeof caller->id, "%llu", ++ids);
    fill(&caller->request, caller->id);
    caller->written = caller->size = caller->end = 0;
    caller->asked = now();
    push(caller);
}

static long count_of(Text *wanted, const char *id, const char *at, const char *end) {
    size_t prefix = wanted->length < PREFIX ? wanted->length : PREFIX;
    long found = 0;
    fill(wanted, id);
    while ((at = memmem(at, (size_t)(end - at), wanted->bytes, prefix)) != NULL) {
        found += (size_t)(end - at) >= wanted->length &&
                 memcmp(at + prefix, wanted->bytes + prefix, wanted->length - prefix) == 0;
        at += prefix;
        if (found > 0 && times == 0) break;
    }
    return found;
}

static void check(const Caller *caller) {
    const char *body = caller->received + caller->body, *end = caller->received + caller->end;
    long found = count_of(&needle, caller->id, body, end);
    if ((times == 0 ? found == 0 : found != times) || count_of(&answer_id, caller->id, body, end) == 0)
        fail("answer", body, (size_t)(end - body));
}

/* Where the answer ends, once its head is there. */
static void read_head(Caller *caller) {
    static const char name[] = "\r\ncontent-length:";
    char *end = memmem(caller->received, caller->size, "\r\n\r\n", 4), *found = NULL;
    if (end == NULL) return;
    *end = '\0';
    if (strncmp(caller->received, "HTTP/1.1 200", 12) == 0) found = strcasestr(caller->received, name);
    if (found == NULL) fail("head", caller->received, caller->size);
    caller->body = (size_t)(end - caller->received) + 4;
    caller->end = caller->body + strtoul(found + sizeof name - 1, NULL, 10);
}

/* Take what has come; whether the answer is whole now. */
static int pull(Caller *caller) {
    if (caller->room < caller->end + 1 || caller->room - caller->size < 4096) {
        caller->room = (caller->end > caller->room * 2 ? caller->end : caller->room * 2) + 65536;
        caller->received = room_for(caller->received, caller->room);
    }
    ssize_t got = recv(caller->fd, caller->received + caller->size, caller->room - caller->size - 1, 0);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) fail("connection", "it was closed", 13);
    caller->size += (size_t)got;
    if (caller->end == 0) read_head(caller);
    if (caller->end == 0 || caller->size < caller->end) return 0;
    if (caller->size > caller->end) fail("answer", "there is more than one", 22);
    return 1;
}

static void run(Caller *callers, long count, double seconds) {
    static double *latencies;
    static size_t room;
    size_t done = 0;
    long waiting = count;
    double begun = now(), deadline = begun + seconds;
    struct epoll_event events[EVENTS];
    for (long index = 0; index < count; index++) ask(&callers[index]);
    while (waiting > 0) {
        int ready = epoll_wait(poll_fd, events, EVENTS, -1);
        for (int index = 0; index < ready; index++) {
            Caller *caller = events[index].data.ptr;
            if (events[index].events & EPOLLOUT) {
                watch(caller, EPOLLIN, EPOLL_CTL_MOD);
                push(caller);
            }
            if (!(events[index].events & ~(uint32_t)EPOLLOUT) || !pull(caller)) continue;
            double at = now();
            if (done == room) latencies = room_for(latencies, (room = room * 2 + 65536) * sizeof *latencies);
            latencies[done++] = at - caller->asked;
            check(caller);
            if (at < deadline) ask(caller);
            else waiting--;
        }
    }
    printf("%.9f %zu\n", now() - begun, done);
    fwrite(latencies, sizeof *latencies, done, stdout);
    fflush(stdout);
}

static int connection(const char *port) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&where, sizeof where) < 0)
        fail("connection", strerror(errno), strlen(strerror(errno)));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

int main(int argc, char **argv) {
    long count, length, microseconds;
    if (argc != 2 || !numbers(1, &count)) return 2;
    Caller *callers = calloc((size_t)count, sizeof *callers);
    poll_fd = epoll_create1(0);
    for (long index = 0; index < count && numbers(1, &length); index++) callers[index].request = text(length);
    if (!numbers(2, &times, &length)) return 2;
    needle = text(length);
    for (long index = 0; index < count; index++) {
        callers[index].fd = connection(argv[1]);
        watch(&callers[index], EPOLLIN, EPOLL_CTL_ADD);
    }
    printf("ready\n");
    fflush(stdout);
    while (numbers(1, &microseconds)) run(callers, count, (double)microseconds / 1e6);
    return 0;
}
