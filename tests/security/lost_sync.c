/* A disk that fails: what Linux does with it, for a process that has this preloaded.
 *
 * Files of $LOST_SYNC_DIRECTORY that SQLite writes have a copy in $LOST_SYNC_DISK: what a power cut
 * would leave. A write changes the file alone, as the page cache does; a sync that succeeds brings
 * what was written since the last one into the copy. While $LOST_SYNC_DIRECTORY/fail has a number
 * above 0, a sync of the write-ahead log counts it down and fails with EIO, and what was written is
 * taken for clean from then on, though it never got to the disk
 * (https://lwn.net/Articles/752063/).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RANGES 65536

/* What was written and not synced: of the database, and of its write-ahead log. */
static struct { off_t at; size_t length; } dirty[2][RANGES];
static int dirties[2];

static int ends_with(const char *name, const char *end) {
    size_t length = strlen(name), tail = strlen(end);
    return length >= tail && !strcmp(name + length - tail, end);
}

/* 0 for the database, 1 for its log, -1 for any other file. */
static int kind(const char *name) {
    const char *directory = getenv("LOST_SYNC_DIRECTORY");
    if (!directory || strncmp(name, directory, strlen(directory))) return -1;
    return ends_with(name, ".db") ? 0 : ends_with(name, ".db-wal") ? 1 : -1;
}

static int kind_of(int fd, char *name, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, size - 1);
    if (length < 0) return -1;
    name[length] = 0;
    return kind(name);
}

static void copy_of(const char *name, char *copy, size_t size) {
    snprintf(copy, size, "%s%s", getenv("LOST_SYNC_DISK"), strrchr(name, '/'));
}

static int must_fail(void) {
    char path[4096], text[32] = "";
    snprintf(path, sizeof path, "%s/fail", getenv("LOST_SYNC_DIRECTORY"));
    int fd = open(path, O_RDWR), left = 0;
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) > 0) left = atoi(text);
    if (left > 0) {
        lseek(fd, 0, SEEK_SET);
        dprintf(fd, "%d\n", left - 1);
    }
    close(fd);
    return left > 0;
}

static int synced(int fd, int (*real)(int)) {
    char name[4096], copy[4096];
    int file = kind_of(fd, name, sizeof name);
    if (file < 0) return real(fd);
    int fails = file == 1 && must_fail();
    if (!fails) {
        copy_of(name, copy, sizeof copy);
        int disk = open(copy, O_WRONLY | O_CREAT, 0600);
        for (int i = 0; i < dirties[file]; i++) {
            char *piece = malloc(dirty[file][i].length);
            ssize_t got = pread(fd, piece, dirty[file][i].length, dirty[file][i].at);
            ssize_t (*put)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
            if (got > 0 && put(disk, piece, got, dirty[file][i].at) < 0) abort();
            free(piece);
        }
        close(disk);
    }
    dirties[file] = 0;
    if (fails) { errno = EIO; return -1; }
    return 0;
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    return synced(fd, real);
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return synced(fd, real);
}

static void written(int fd, off_t at, size_t length) {
    char name[4096];
    int file = kind_of(fd, name, sizeof name);
    if (file < 0) return;
    if (dirties[file] == RANGES) abort();
    dirty[file][dirties[file]].at = at;
    dirty[file][dirties[file]++].length = length;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite64");
    written(fd, at, length);
    return real(fd, data, length, at);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    written(fd, at, length);
    return real(fd, data, length, at);
}

static void cut(int fd, off_t length) {
    char name[4096], copy[4096];
    if (kind_of(fd, name, sizeof name) < 0) return;
    copy_of(name, copy, sizeof copy);
    if (truncate(copy, length) && errno != ENOENT) abort();
}

int ftruncate64(int fd, off_t length) {
    int (*real)(int, off_t) = dlsym(RTLD_NEXT, "ftruncate64");
    cut(fd, length);
    return real(fd, length);
}

int ftruncate(int fd, off_t length) {
    int (*real)(int, off_t) = dlsym(RTLD_NEXT, "ftruncate");
    cut(fd, length);
    return real(fd, length);
}

int unlink(const char *path) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    int file = kind(path);
    if (file >= 0) {
        char copy[4096];
        copy_of(path, copy, sizeof copy);
        real(copy);
        dirties[file] = 0;
    }
    return real(path);
}
