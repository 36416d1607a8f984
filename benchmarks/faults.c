/* Fail one file operation of a process: loaded with LD_PRELOAD, armed by `arm`. See faults.py.

   Operations count if they concern files below a folder. The chosen one fails with an error number
   (0: a short write), and so do all later ones if `lasting`. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN = 1, READ = 2, WRITE = 4, NAME = 8, LOOK = 16 };

static const char *folder = NULL;
static int kinds, fault, lasting;
static long chosen, seen;

/* Count operations of `kinds_` below `folder_`, and fail number `chosen_`, counted from 1. */
void arm(const char *folder_, int kinds_, long chosen_, int fault_, int lasting_) {
    kinds = kinds_, chosen = chosen_, fault = fault_, lasting = lasting_, seen = 0;
    folder = folder_;
}

long counted(void) { return seen; }

static int below(const char *path) {
    return path && (path[0] != '/' || strstr(path, folder)); /* the process works in the folder */
}

static int fails(int kind, const char *path) {
    if (!folder || !(kinds & kind) || !below(path)) return 0;
    long number = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (!chosen || number < chosen || (number > chosen && !lasting)) return 0;
    errno = fault;
    return 1;
}

static int fails_fd(int kind, int fd) {
    char link[64], path[4096];
    if (!folder || !(kinds & kind) || fd < 3) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return path[0] == '/' && fails(kind, path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRAP(kind, path, type, name, parameters, arguments) \
    type name parameters { return fails(kind, path) ? -1 : NEXT(name) arguments; }
#define WRAP_OPEN(name, parameters, path, ...)                    \
    int name parameters {                                         \
        va_list rest;                                             \
        va_start(rest, flags);                                    \
        int mode = va_arg(rest, int);                             \
        va_end(rest);                                             \
        return fails(OPEN, path) ? -1 : NEXT(name)(__VA_ARGS__, mode); \
    }

WRAP_OPEN(open, (const char *path, int flags, ...), path, path, flags)
WRAP_OPEN(open64, (const char *path, int flags, ...), path, path, flags)
WRAP_OPEN(openat, (int at, const char *path, int flags, ...), path, at, path, flags)
WRAP_OPEN(openat64, (int at, const char *path, int flags, ...), path, at, path, flags)

DIR *opendir(const char *path) { return fails(OPEN, path) ? NULL : NEXT(opendir)(path); }

ssize_t read(int fd, void *to, size_t size) {
    return fails_fd(READ, fd) ? -1 : NEXT(read)(fd, to, size);
}

ssize_t write(int fd, const void *from, size_t size) {
    if (fails_fd(WRITE, fd)) {
        if (fault) return -1;
        size = (size + 1) / 2;
    }
    return NEXT(write)(fd, from, size);
}

int fsync(int fd) { return fails_fd(WRITE, fd) && fault ? -1 : NEXT(fsync)(fd); }

WRAP(NAME, from, int, rename, (const char *from, const char *to), (from, to))
WRAP(NAME, from, int, link, (const char *from, const char *to), (from, to))
WRAP(NAME, path, int, unlink, (const char *path), (path))
WRAP(NAME, path, int, unlinkat, (int at, const char *path, int flags), (at, path, flags))
WRAP(NAME, path, int, rmdir, (const char *path), (path))
WRAP(NAME, path, int, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(NAME, path, int, utimensat,
     (int at, const char *path, const struct timespec times[2], int flags),
     (at, path, times, flags))
WRAP(LOOK, path, int, stat, (const char *path, struct stat *to), (path, to))
WRAP(LOOK, path, int, lstat, (const char *path, struct stat *to), (path, to))
WRAP(LOOK, path, int, stat64, (const char *path, struct stat64 *to), (path, to))
WRAP(LOOK, path, int, lstat64, (const char *path, struct stat64 *to), (path, to))
WRAP(LOOK, path, int, fstatat, (int at, const char *path, struct stat *to, int flags),
     (at, path, to, flags))
WRAP(LOOK, path, int, fstatat64, (int at, const char *path, struct stat64 *to, int flags),
     (at, path, to, flags))
