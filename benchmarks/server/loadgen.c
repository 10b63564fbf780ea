/*
 * loadgen: many PTS-2 controllers in one process, cheap enough not to be the bottleneck.
 *
 * One thread, epoll, no allocation while it measures. Frames are true jsonPTS uploads, masked; the
 * next frame of a connection leaves only after the confirmation that carries its own Id and
 * "Message":"OK" came back. Every message has its own natural key (Transaction, DateTime, totals),
 * and every connection its own X-Pts-Id, so a server that recognises repeated records still has to
 * keep every one of them.
 *
 *   loadgen roundtrips  lock-step on every connection, for --seconds after --warmup
 *   loadgen rate        --rate messages a second on a fixed schedule; the time counts from the
 *                       moment a message was due, so a stalled server cannot hide its stall
 *   loadgen handshakes  connect, 101 with the right Sec-WebSocket-Accept, close; --connections at once
 *   loadgen idle        open --connections, say so, answer pings until standard input closes
 *   loadgen hold        open --connections, each sends UploadStatus every --period seconds and a
 *                       ping every --ping-period; a pong later than --late seconds is counted
 *
 * Prints one line of JSON when all connections are open and one at the end. Exit status: 0 measured
 * and no error seen, 1 errors seen (the last line counts them and quotes the first), 2 bad arguments.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t ns_t;
#define SECOND 1000000000ull
#define INBOX 4096
#define OUTBOX 4096
#define HANDSHAKES_AT_ONCE 64
#define KEYS 64

/* ---- what was asked ------------------------------------------------------------------------- */

enum mode { ROUNDTRIPS, RATE, HANDSHAKES, IDLE, HOLD };

static struct {
    enum mode mode;
    const char *mode_name;
    const char *host;
    int port;
    const char *path;
    int connections;
    double seconds, warmup, rate, period, ping_period, late;
    int sources;     /* how many addresses of 127.0.0.0/8 to dial from */
    int cpu;         /* core to stay on, -1 for any */
    int server_pid;  /* whose processor time to report, 0 for none */
    unsigned salt;   /* first eight hex digits of every X-Pts-Id */
} ask = {.host = "127.0.0.1", .port = 3000, .path = "/ptsWebSocket", .connections = 100,
         .seconds = 5, .warmup = 1, .rate = 1000, .period = 10, .ping_period = 20, .late = 1,
         .sources = 200, .cpu = -1};

/* ---- errors: counted by kind, the first one quoted -------------------------------------------- */

enum error { E_CONNECT, E_HANDSHAKE, E_CLOSED, E_ANSWER, E_FRAME, E_WRITE, E_KINDS };
static const char *error_names[E_KINDS] = {"connect", "handshake", "closed", "answer", "frame", "write"};
static unsigned long errors[E_KINDS];
static char first_error[400];

__attribute__((format(printf, 2, 3))) static void note(enum error kind, const char *format, ...) {
    errors[kind]++;
    if (first_error[0]) return;
    va_list args;
    va_start(args, format);
    vsnprintf(first_error, sizeof first_error, format, args);
    va_end(args);
    for (char *c = first_error; *c; c++)
        if (*c == '"') *c = '\'';
        else if (*c == '\\' || (unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e) *c = '.';
}

static unsigned long error_total(void) {
    unsigned long total = 0;
    for (int i = 0; i < E_KINDS; i++) total += errors[i];
    return total;
}

static void die(const char *text) {
    fprintf(stderr, "loadgen: %s: %s\n", text, strerror(errno));
    exit(2);
}

/* ---- clocks and processor time ----------------------------------------------------------------- */

static ns_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (ns_t)t.tv_sec * SECOND + (ns_t)t.tv_nsec;
}

static double own_cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Seconds of processor time of the server, all its threads (proc(5), utime + stime). */
static double server_cpu(void) {
    if (!ask.server_pid) return 0;
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", ask.server_pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    char *after_name = strrchr(text, ')');
    unsigned long user, system;
    if (!after_name || sscanf(after_name + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return 0;
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- latencies: buckets of about 1.6 %, from 1 microsecond to over an hour ---------------------- */

#define SUB 64
#define BUCKETS (32 * SUB)
struct histogram {
    uint32_t count[BUCKETS];
    unsigned long total;
    ns_t max;
};

static unsigned bucket_of(uint64_t us) {
    if (us < SUB) return (unsigned)us;
    unsigned shift = 63u - (unsigned)__builtin_clzll(us) - 6u; /* keep seven significant bits */
    unsigned index = (shift + 1) * SUB + (unsigned)((us >> shift) - SUB);
    return index < BUCKETS ? index : BUCKETS - 1;
}

static double bucket_middle(unsigned index) {
    if (index < SUB) return index + 0.5;
    unsigned shift = index / SUB - 1;
    return ((double)(index % SUB + SUB) + 0.5) * (double)(1ull << shift);
}

static void record(struct histogram *h, ns_t elapsed) {
    h->count[bucket_of(elapsed / 1000)]++;
    h->total++;
    if (elapsed > h->max) h->max = elapsed;
}

static double quantile_ms(const struct histogram *h, double q) {
    if (!h->total) return 0;
    unsigned long rank = (unsigned long)(q * (double)h->total), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        if ((seen += h->count[i]) > rank) return bucket_middle(i) / 1000;
    return (double)h->max / 1e6;
}

static struct histogram confirmations, pongs, openings;

/* ---- keys and the values a server must answer them with (RFC 6455 section 4.2.2) ---------------- */

static uint32_t rotate(uint32_t x, int by) { return (x << by) | (x >> (32 - by)); }

static void sha1(const uint8_t *data, size_t length, uint8_t out[20]) { /* FIPS 180-4, length < 120 */
    uint8_t block[128] = {0};
    memcpy(block, data, length);
    block[length] = 0x80;
    size_t blocks = length < 56 ? 1 : 2;
    uint64_t bits = length * 8;
    for (int i = 0; i < 8; i++) block[blocks * 64 - 1 - (size_t)i] = (uint8_t)(bits >> (8 * i));
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    for (size_t b = 0; b < blocks; b++) {
        uint32_t w[80];
        for (size_t i = 0; i < 16; i++) {
            const uint8_t *p = block + b * 64 + i * 4;
            w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        }
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t a = h[0], c = h[2], d = h[3], e = h[4], bb = h[1];
        for (int i = 0; i < 80; i++) {
            uint32_t f, k;
            if (i < 20) f = (bb & c) | (~bb & d), k = 0x5a827999;
            else if (i < 40) f = bb ^ c ^ d, k = 0x6ed9eba1;
            else if (i < 60) f = (bb & c) | (bb & d) | (c & d), k = 0x8f1bbcdc;
            else f = bb ^ c ^ d, k = 0xca62c1d6;
            uint32_t t = rotate(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rotate(bb, 30), bb = a, a = t;
        }
        h[0] += a, h[1] += bb, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t *data, size_t length, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        uint32_t v = (uint32_t)data[i] << 16;
        if (i + 1 < length) v |= (uint32_t)data[i + 1] << 8;
        if (i + 2 < length) v |= data[i + 2];
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        *out++ = i + 1 < length ? digits[v >> 6 & 63] : '=';
        *out++ = i + 2 < length ? digits[v & 63] : '=';
    }
    *out = 0;
}

static char keys[KEYS][25], accepts[KEYS][29];

static void make_keys(void) {
    for (int i = 0; i < KEYS; i++) {
        uint8_t raw[16], digest[20];
        char text[80];
        if (getrandom(raw, sizeof raw, 0) != sizeof raw) die("getrandom");
        base64(raw, sizeof raw, keys[i]);
        snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", keys[i]);
        sha1((const uint8_t *)text, strlen(text), digest);
        base64(digest, sizeof digest, accepts[i]);
    }
}

/* ---- the messages ------------------------------------------------------------------------------ */

/* Runs of one capital letter are filled in: P X-Pts-Id, I packet Id, S and E the start and end of a
 * filling, D a moment, N a 5-digit and W a 7-digit number that no other message of this
 * controller has. */
static const char *templates[] = {
    "{\"Protocol\":\"jsonPTS\",\"PtsId\":\"PPPPPPPPPPPPPPPPPPPPPPPP\",\"Packets\":[{\"Id\":IIIII,"
    "\"Type\":\"UploadPumpTransaction\",\"Data\":{\"DateTimeStart\":\"SSSSSSSSSSSSSSSSSSS\","
    "\"DateTime\":\"EEEEEEEEEEEEEEEEEEE\",\"Pump\":3,\"Nozzle\":2,\"Tank\":1,\"FuelGradeId\":2,"
    "\"FuelGradeName\":\"Diesel\",\"Transaction\":NNNNN,\"Volume\":41.370,\"TCVolume\":41.210,"
    "\"Price\":1.689,\"Amount\":69.87,\"TotalVolume\":WWWWWWW.37,\"TotalAmount\":WWWWWWW.87,\"Tag\":\"\","
    "\"UserId\":1,\"ConfigurationId\":\"5f3ac21\"}}]}",
    "{\"Protocol\":\"jsonPTS\",\"PtsId\":\"PPPPPPPPPPPPPPPPPPPPPPPP\",\"Packets\":[{\"Id\":IIIII,"
    "\"Type\":\"UploadTankMeasurement\",\"Data\":{\"DateTime\":\"DDDDDDDDDDDDDDDDDDD\",\"Tank\":2,"
    "\"FuelGradeId\":2,\"FuelGradeName\":\"Diesel\",\"Status\":\"OK\",\"Alarms\":[],"
    "\"ProductHeight\":1482.7,\"WaterHeight\":4.1,\"Temperature\":14.6,\"ProductVolume\":WWWWWWW.5,"
    "\"WaterVolume\":21.3,\"ProductUllage\":6181.5,\"ProductTCVolume\":8811.4,\"ProductDensity\":834.2,"
    "\"ProductMass\":7370.1,\"TankFillingPercentage\":59,\"ConfigurationId\":\"5f3ac21\"}}]}",
    "{\"Protocol\":\"jsonPTS\",\"PtsId\":\"PPPPPPPPPPPPPPPPPPPPPPPP\",\"Packets\":[{\"Id\":IIIII,"
    "\"Type\":\"UploadStatus\",\"Data\":{\"ConfigurationId\":\"5f3ac21\",\"DateTime\":\"DDDDDDDDDDDDDDDDDDD\","
    "\"UTCOffset\":120,\"FirmwareDateTime\":\"2026-01-06T23:59:14\",\"PtsStartupSeconds\":WWWWWWW,"
    "\"BatteryVoltage\":3124,\"CpuTemperature\":38,\"PowerDownDetected\":false,\"SdMounted\":true,"
    "\"Pumps\":{\"IdleStatus\":{\"Ids\":[1,2,4],\"NozzlesUp\":[0,0,0],\"LastTransactions\":[411,87,1033],"
    "\"LastVolumes\":[20.5,31.02,12.8],\"LastAmounts\":[34.6,52.4,21.6]},\"FillingStatus\":{\"Ids\":[3],"
    "\"Nozzles\":[2],\"Transactions\":[NNNNN],\"Volumes\":[11.37],\"Prices\":[1.689],\"Amounts\":[19.2]},"
    "\"EndOfTransactionStatus\":{},\"OfflineStatus\":{}},\"Probes\":{\"OnlineStatus\":{\"Ids\":[1,2],"
    "\"Errors\":[0,0],\"Measurements\":[[1,1482.7,4.1,14.6,8841.5,21.3,6181.5,8811.4,834.2,7370.1,59],"
    "[2,911.2,2.0,14.9,4212.8,9.8,10811.2,4190.6,745.1,3138.9,28]]},\"OfflineStatus\":{}},"
    "\"PriceBoards\":{},\"Readers\":{},\"Gps\":{}}}]}",
};
enum { PUMP_TRANSACTION, TANK_MEASUREMENT, STATUS, TEMPLATES };
#define FIELDS 9
static struct {
    size_t length;
    struct { char letter; size_t at, width; } field[FIELDS];
    int fields;
} shape[TEMPLATES];

static void read_templates(void) {
    for (int t = 0; t < TEMPLATES; t++) {
        const char *text = templates[t];
        shape[t].length = strlen(text);
        for (size_t i = 0; i < shape[t].length;) {
            size_t run = 1;
            while (text[i + run] == text[i]) run++;
            if (run >= 5 && strchr("PISEDNW", text[i])) {
                if (shape[t].fields == FIELDS) abort();
                shape[t].field[shape[t].fields].letter = text[i];
                shape[t].field[shape[t].fields].at = i;
                shape[t].field[shape[t].fields++].width = run;
            }
            i += run;
        }
    }
}

static void digits(char *at, size_t width, uint64_t value) {
    while (width--) at[width] = (char)('0' + value % 10), value /= 10;
}

/* YYYY-MM-DDThh:mm:ss, `seconds` after 2026-01-01 (no zone: a controller's own clock). */
static void moment(char *at, uint64_t seconds) {
    uint64_t z = seconds / 86400 + 20454 + 719468, of_day = seconds % 86400; /* days since 0000-03-01 */
    uint64_t era = z / 146097, doe = z % 146097;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    uint64_t month = mp < 10 ? mp + 3 : mp - 9;
    digits(at, 4, yoe + era * 400 + (month <= 2));
    digits(at + 5, 2, month);
    digits(at + 8, 2, doy - (153 * mp + 2) / 5 + 1);
    digits(at + 11, 2, of_day / 3600);
    digits(at + 14, 2, of_day / 60 % 60);
    digits(at + 17, 2, of_day % 60);
    at[4] = at[7] = '-', at[10] = 'T', at[13] = at[16] = ':';
}

/* ---- connections ------------------------------------------------------------------------------- */

enum state { CLOSED, CONNECTING, UPGRADING, OPEN };

struct connection {
    int fd, index;
    enum state state;
    bool waiting;           /* for a confirmation */
    unsigned id;            /* packet Id of the message that waits */
    uint64_t sequence;      /* messages sent so far */
    ns_t started;           /* when the connection, then when the waiting message, was due to start */
    uint64_t due, sent;     /* rate and hold: messages that were due, messages that were sent */
    ns_t ping_at;           /* when the unanswered ping left, 0 for none */
    size_t held;
    char id_text[25];
    uint8_t inbox[INBOX];
};

static struct connection *all;
static int epoll, opening, open_now, next_to_open;
static unsigned long handshakes, sent_total, late_pongs, pings_answered;
static bool measuring;
static unsigned long counted;
static uint64_t mask_state = 0x9e3779b97f4a7c15ull;

static void drop(struct connection *c) {
    if (c->state == CLOSED) return;
    if (c->state == OPEN) open_now--;
    else opening--;
    close(c->fd);
    c->state = CLOSED;
    c->waiting = false;
    c->held = 0;
}

static void dial(struct connection *c) {
    static unsigned long dialled;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (ask.sources > 0) {
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        unsigned long n = dialled++ % (unsigned long)ask.sources;
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(0x7f000101u + (uint32_t)(n / 250 << 8) + (uint32_t)(n % 250));
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0) die("bind");
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)ask.port)};
    if (inet_pton(AF_INET, ask.host, &to.sin_addr) != 1) die(ask.host);
    c->state = CONNECTING;
    c->started = now();
    c->held = 0;
    opening++;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        note(E_CONNECT, "connect: %s", strerror(errno));
        drop(c);
        return;
    }
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl");
}

static bool put(struct connection *c, const void *data, size_t length) {
    ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
    if (n == (ssize_t)length) return true;
    note(E_WRITE, "connection %d: send: %s", c->index, n < 0 ? strerror(errno) : "short write");
    drop(c);
    return false;
}

static void ask_upgrade(struct connection *c) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        note(E_CONNECT, "connect: %s", strerror(error));
        drop(c);
        return;
    }
    char head[700];
    int length = snprintf(head, sizeof head,
        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nOrigin: http://192.0.2.10\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\nX-Pts-Id: %s\r\n"
        "X-Pts-Firmware-Version-DateTime: 26-01-06T23:59:14\r\n"
        "X-Pts-Configuration-Identifier: 5f3ac21\r\nSec-WebSocket-Version: 13\r\n\r\n",
        ask.path, ask.host, ask.port, keys[c->index % KEYS], c->id_text);
    c->state = UPGRADING;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
    put(c, head, (size_t)length);
}

static bool send_frame(struct connection *c, unsigned opcode, const void *payload, size_t length) {
    uint8_t frame[OUTBOX];
    size_t head = 2;
    frame[0] = (uint8_t)(0x80 | opcode);
    if (length < 126) frame[1] = (uint8_t)(0x80 | length);
    else {
        frame[1] = 0x80 | 126;
        frame[2] = (uint8_t)(length >> 8);
        frame[3] = (uint8_t)length;
        head = 4;
    }
    if (head + 4 + length > sizeof frame) abort();
    mask_state ^= mask_state << 13, mask_state ^= mask_state >> 7, mask_state ^= mask_state << 17;
    uint64_t mask = (mask_state & 0xffffffffu) * 0x100000001ull;
    memcpy(frame + head, &mask, 4);
    uint8_t *to = frame + head + 4;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        uint64_t word;
        memcpy(&word, (const uint8_t *)payload + i, 8);
        word ^= mask;
        memcpy(to + i, &word, 8);
    }
    for (; i < length; i++) to[i] = ((const uint8_t *)payload)[i] ^ (uint8_t)(mask >> (8 * (i % 8)));
    return put(c, frame, head + 4 + length);
}

static void upload(struct connection *c, ns_t due) {
    char text[OUTBOX];
    int kind = ask.mode == HOLD ? STATUS : c->sequence % 2 ? TANK_MEASUREMENT : PUMP_TRANSACTION;
    memcpy(text, templates[kind], shape[kind].length);
    c->id = 10000 + (unsigned)((c->sequence + (uint64_t)c->index * 7) % 55536);
    for (int i = 0; i < shape[kind].fields; i++) {
        char *at = text + shape[kind].field[i].at;
        size_t width = shape[kind].field[i].width;
        switch (shape[kind].field[i].letter) {
            case 'P': memcpy(at, c->id_text, 24); break;
            case 'I': digits(at, width, c->id); break;
            case 'S': moment(at, c->sequence * 30 + (uint64_t)c->index); break;
            case 'E': case 'D': moment(at, c->sequence * 30 + 29 + (uint64_t)c->index); break;
            case 'N': digits(at, width, 10000 + c->sequence % 55535); break;
            case 'W': digits(at, width, 1000000 + c->sequence % 9000000); break;
            default: abort();
        }
    }
    c->sequence++;
    c->waiting = true;
    c->started = due;
    sent_total++;
    send_frame(c, 1, text, shape[kind].length);
}

/* ---- schedules: message n of the whole run belongs to connection n modulo connections ------------ */

struct schedule {
    ns_t start;
    double interval; /* nanoseconds between two connections' turns */
    uint64_t next;
};
static struct schedule uploads, pings;

static ns_t turn(const struct schedule *s, uint64_t n) { return s->start + (ns_t)(s->interval * (double)n); }

static void upload_if_due(struct connection *c) {
    if (c->state == OPEN && !c->waiting && c->sent < c->due) {
        ns_t due = turn(&uploads, c->sent * (uint64_t)ask.connections + (uint64_t)c->index);
        c->sent++;
        upload(c, due);
    }
}

static void run_schedules(ns_t at) {
    if (uploads.start)
        for (; turn(&uploads, uploads.next) <= at; uploads.next++) {
            struct connection *c = &all[uploads.next % (uint64_t)ask.connections];
            c->due++;
            upload_if_due(c);
        }
    if (pings.start)
        for (; turn(&pings, pings.next) <= at; pings.next++) {
            struct connection *c = &all[pings.next % (uint64_t)ask.connections];
            if (c->state != OPEN) continue;
            if (c->ping_at) {
                late_pongs++; /* a whole period without an answer */
                continue;
            }
            c->ping_at = now();
            send_frame(c, 9, "ptslink", 7);
        }
}

/* ---- what comes back ----------------------------------------------------------------------------- */

/* The confirmation of exactly the message that waits: its Id as a number, and "Message":"OK". */
static bool confirms(const char *text, size_t length, unsigned id) {
    const char *end = text + length, *at = memmem(text, length, "\"Id\"", 4);
    if (!at) return false;
    at += 4;
    while (at < end && (*at == ' ' || *at == ':')) at++;
    unsigned seen = 0;
    const char *first = at;
    while (at < end && *at >= '0' && *at <= '9') seen = seen * 10 + (unsigned)(*at++ - '0');
    if (at == first || seen != id) return false;
    const char *message = memmem(text, length, "\"Message\"", 9);
    if (!message) return false;
    message += 9;
    while (message < end && (*message == ' ' || *message == ':')) message++;
    return end - message >= 4 && !memcmp(message, "\"OK\"", 4);
}

static void on_text(struct connection *c, const char *text, size_t length) {
    if (!c->waiting || !confirms(text, length, c->id)) {
        note(E_ANSWER, "connection %d %s Id %u and got: %.*s", c->index,
             c->waiting ? "waits for" : "no longer waits for", c->id, (int)(length < 250 ? length : 250), text);
        return;
    }
    c->waiting = false;
    ns_t at = now();
    if (measuring) {
        counted++;
        record(&confirmations, at - c->started);
    }
    if (ask.mode == ROUNDTRIPS) upload(c, at);
    else upload_if_due(c);
}

static void on_pong(struct connection *c) {
    if (!c->ping_at) return; /* an unsolicited pong is allowed (RFC 6455 section 5.5.3) */
    ns_t elapsed = now() - c->ping_at;
    c->ping_at = 0;
    if (!measuring) return;
    record(&pongs, elapsed);
    if ((double)elapsed > ask.late * 1e9) late_pongs++;
}

/* One frame from the inbox; the bytes it took, 0 if it is not whole yet. */
static size_t take_frame(struct connection *c, size_t from) {
    const uint8_t *p = c->inbox + from;
    size_t have = c->held - from, head = 2;
    if (have < 2) return 0;
    size_t length = p[1] & 0x7f;
    if (length == 126) {
        if (have < 4) return 0;
        length = (size_t)p[2] << 8 | p[3];
        head = 4;
    }
    if ((p[1] & 0x80) || length == 127 || head + length > INBOX || !(p[0] & 0x80)) {
        note(E_FRAME, "connection %d: masked, fragmented or overlong frame, first bytes %02x %02x", c->index, p[0], p[1]);
        drop(c);
        return 0;
    }
    if (have < head + length) return 0;
    const uint8_t *payload = p + head;
    switch (p[0]) {
        case 0x81: on_text(c, (const char *)payload, length); break;
        case 0x89:
            pings_answered++;
            send_frame(c, 10, payload, length);
            break;
        case 0x8a: on_pong(c); break;
        case 0x88:
            note(E_CLOSED, "connection %d: closed by the server, code %d", c->index, length >= 2 ? payload[0] << 8 | payload[1] : 1005);
            drop(c);
            break;
        default:
            note(E_FRAME, "connection %d: unexpected frame, first byte %02x", c->index, p[0]);
            drop(c);
    }
    return head + length;
}

/* The answer to the upgrade: bytes it took once whole, 0 if it is not whole yet or was refused. */
static size_t take_answer(struct connection *c) {
    char *text = (char *)c->inbox;
    char *end = memmem(text, c->held, "\r\n\r\n", 4);
    if (!end) {
        if (c->held == INBOX) {
            note(E_HANDSHAKE, "connection %d: an answer without an end", c->index);
            drop(c);
        }
        return 0;
    }
    *end = 0;
    const char *accept = strcasestr(text, "\r\nsec-websocket-accept:");
    if (accept) {
        accept += 23;
        while (*accept == ' ') accept++;
    }
    if (strncmp(text, "HTTP/1.1 101 ", 13) || !accept || strncmp(accept, accepts[c->index % KEYS], 28)) {
        note(E_HANDSHAKE, "connection %d: not a right 101: %.200s", c->index, text);
        drop(c);
        return 0;
    }
    return (size_t)(end - text) + 4;
}

static void on_open(struct connection *c) {
    c->state = OPEN;
    opening--;
    open_now++;
    handshakes++;
    if (ask.mode == HANDSHAKES) {
        if (measuring) {
            counted++;
            record(&openings, now() - c->started);
        }
        drop(c);
        dial(c);
    }
}

static void on_bytes(struct connection *c) {
    ssize_t n = recv(c->fd, c->inbox + c->held, INBOX - c->held, 0);
    if (n <= 0) {
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        note(c->state == OPEN ? E_CLOSED : E_HANDSHAKE, "connection %d: %s in state %d", c->index,
             n ? strerror(errno) : "end of stream", (int)c->state);
        drop(c);
        return;
    }
    c->held += (size_t)n;
    size_t from = 0, took;
    if (c->state == UPGRADING) {
        if (!(from = take_answer(c))) return;
        int fd = c->fd;
        on_open(c);
        if (c->state != OPEN || c->fd != fd) return;
    }
    while (c->state == OPEN && (took = take_frame(c, from))) from += took;
    if (c->state != OPEN) return;
    c->held -= from;
    if (c->held) memmove(c->inbox, c->inbox + from, c->held);
}

/* ---- the loop ------------------------------------------------------------------------------------ */

static bool stdin_closed;

/* Handle what is ready until `until` (or, with `opened`, until every connection is open). */
static void turn_loop(ns_t until, bool opened) {
    static struct epoll_event events[512];
    for (;;) {
        ns_t at = now();
        if (at >= until || stdin_closed) return;
        if (opened) {
            while (opening < HANDSHAKES_AT_ONCE && next_to_open < ask.connections && !error_total())
                dial(&all[next_to_open++]);
            if (open_now == ask.connections || error_total()) return;
        }
        run_schedules(at);
        ns_t next = until;
        if (uploads.start && turn(&uploads, uploads.next) < next) next = turn(&uploads, uploads.next);
        if (pings.start && turn(&pings, pings.next) < next) next = turn(&pings, pings.next);
        at = now();
        ns_t wait = next > at ? next - at : 0;
        struct timespec timeout = {.tv_sec = (time_t)(wait / SECOND), .tv_nsec = (long)(wait % SECOND)};
        int n = epoll_pwait2(epoll, events, 512, &timeout, NULL);
        if (n < 0 && errno != EINTR) die("epoll_pwait2");
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                char byte;
                if (read(0, &byte, 1) <= 0) stdin_closed = true;
            } else if (c->state == CONNECTING) ask_upgrade(c);
            else if (c->state != CLOSED) on_bytes(c);
        }
        if (errors[E_CONNECT] + errors[E_HANDSHAKE] > 1000) return; /* nobody answers: do not spin */
    }
}

static void print_histogram(const char *name, const struct histogram *h) {
    printf(",\"%s_ms\":{\"count\":%lu,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f}", name, h->total,
           quantile_ms(h, .5), quantile_ms(h, .9), quantile_ms(h, .99), quantile_ms(h, .999), (double)h->max / 1e6);
}

static double number(const char *name, const char *text, double low, double high) {
    char *end;
    double value = strtod(text, &end);
    if (!*text || *end || value < low || value > high) {
        fprintf(stderr, "loadgen: --%s %s: accepted are numbers from %g to %g\n", name, text, low, high);
        exit(2);
    }
    return value;
}

static void read_arguments(int argc, char **argv) {
    static const char *modes[] = {"roundtrips", "rate", "handshakes", "idle", "hold"};
    int found = -1;
    for (int i = 0; i < 5 && argc > 1; i++)
        if (!strcmp(argv[1], modes[i])) found = i;
    if (found < 0 || argc % 2) {
        fprintf(stderr, "usage: loadgen roundtrips|rate|handshakes|idle|hold [--NAME VALUE]...\n"
                        "names: host port path connections seconds warmup rate period ping-period late sources cpu server-pid salt\n");
        exit(2);
    }
    ask.mode = (enum mode)found;
    ask.mode_name = modes[found];
    for (int i = 2; i < argc; i += 2) {
        const char *name = argv[i] + 2, *value = argv[i + 1];
        if (strncmp(argv[i], "--", 2)) name = "";
        if (!strcmp(name, "host")) ask.host = value;
        else if (!strcmp(name, "path")) ask.path = value;
        else if (!strcmp(name, "port")) ask.port = (int)number(name, value, 1, 65535);
        else if (!strcmp(name, "connections")) ask.connections = (int)number(name, value, 1, 60000);
        else if (!strcmp(name, "seconds")) ask.seconds = number(name, value, 0.1, 86400);
        else if (!strcmp(name, "warmup")) ask.warmup = number(name, value, 0, 3600);
        else if (!strcmp(name, "rate")) ask.rate = number(name, value, 0.1, 1e7);
        else if (!strcmp(name, "period")) ask.period = number(name, value, 0.1, 3600);
        else if (!strcmp(name, "ping-period")) ask.ping_period = number(name, value, 0.1, 3600);
        else if (!strcmp(name, "late")) ask.late = number(name, value, 0.001, 3600);
        else if (!strcmp(name, "sources")) ask.sources = (int)number(name, value, 0, 10000);
        else if (!strcmp(name, "cpu")) ask.cpu = (int)number(name, value, -1, 1023);
        else if (!strcmp(name, "server-pid")) ask.server_pid = (int)number(name, value, 0, 1 << 22);
        else if (!strcmp(name, "salt")) ask.salt = (unsigned)number(name, value, 0, 4294967295.0);
        else {
            fprintf(stderr, "loadgen: unknown argument: %s\n", argv[i]);
            exit(2);
        }
    }
}

static void settle(void) {
    if (ask.cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)ask.cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
    }
    prctl(PR_SET_TIMERSLACK, 1000ul);
    prctl(PR_SET_PDEATHSIG, 9); /* never outlive the bench */
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if ((rlim_t)ask.connections + 16 > files.rlim_max) {
        fprintf(stderr, "loadgen: --connections %d: the descriptor limit is %llu\n", ask.connections, (unsigned long long)files.rlim_max);
        exit(2);
    }
    make_keys();
    read_templates();
    epoll = epoll_create1(0);
    all = calloc((size_t)ask.connections, sizeof *all);
    if (epoll < 0 || !all) die("set up");
    for (int i = 0; i < ask.connections; i++) {
        all[i].index = i;
        snprintf(all[i].id_text, sizeof all[i].id_text, "%08X%08X%08X", ask.salt, 0xBE4C0000u, (unsigned)i);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
}

int main(int argc, char **argv) {
    read_arguments(argc, argv);
    settle();

    ns_t begun = now();
    if (ask.mode == HANDSHAKES) {
        for (int i = 0; i < ask.connections; i++) dial(&all[i]);
        turn_loop(now() + (ns_t)(ask.warmup * 1e9), false);
    } else {
        turn_loop(now() + 120 * SECOND, true);
        if (open_now == ask.connections)
            printf("{\"event\":\"open\",\"connections\":%d,\"seconds\":%.3f}\n", open_now, (double)(now() - begun) / 1e9);
        else note(E_HANDSHAKE, "%d of %d connections open", open_now, ask.connections);
    }

    if (!error_total()) {
        ns_t start = now();
        if (ask.mode == ROUNDTRIPS)
            for (int i = 0; i < ask.connections; i++) upload(&all[i], now());
        if (ask.mode == RATE) uploads = (struct schedule){start, 1e9 / ask.rate, 0};
        if (ask.mode == HOLD) {
            uploads = (struct schedule){start, ask.period * 1e9 / ask.connections, 0};
            pings = (struct schedule){start, ask.ping_period * 1e9 / ask.connections, 0};
        }
        if (ask.mode == IDLE) {
            struct epoll_event event = {.events = EPOLLIN};
            if (epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event) < 0) die("standard input must be a pipe");
        }
        if (ask.mode != HANDSHAKES) turn_loop(start + (ns_t)(ask.warmup * 1e9), false);
    }
    double own = own_cpu(), server = server_cpu();
    ns_t start = now();
    measuring = true;
    if (!error_total()) turn_loop(start + (ns_t)(ask.seconds * 1e9), false);
    measuring = false;
    double elapsed = (double)(now() - start) / 1e9;
    own = own_cpu() - own;
    server = server_cpu() - server;

    int unanswered = 0;
    for (int i = 0; i < ask.connections; i++)
        if (ask.mode == HOLD && all[i].ping_at && (double)(now() - all[i].ping_at) > ask.late * 1e9) unanswered++;
    printf("{\"event\":\"end\",\"mode\":\"%s\",\"connections\":%d,\"open\":%d,\"seconds\":%.3f,\"count\":%lu,\"per_second\":%.1f",
           ask.mode_name, ask.connections, open_now, elapsed, counted, elapsed > 0 ? (double)counted / elapsed : 0);
    printf(",\"client_cpu\":%.3f,\"server_cpu\":%.3f,\"frame_bytes\":[%zu,%zu,%zu]", own / elapsed, server / elapsed,
           shape[0].length, shape[1].length, shape[2].length);
    print_histogram("confirmation", &confirmations);
    print_histogram("pong", &pongs);
    print_histogram("handshake", &openings);
    printf(",\"handshakes\":%lu,\"sent\":%lu,\"server_pings\":%lu,\"late_pongs\":%lu,\"errors\":{", handshakes, sent_total,
           pings_answered, late_pongs + (unsigned long)unanswered);
    for (int i = 0; i < E_KINDS; i++) printf("%s\"%s\":%lu", i ? "," : "", error_names[i], errors[i]);
    printf("},\"first_error\":\"%s\"}\n", first_error);
    return error_total() ? 1 : 0;
}
