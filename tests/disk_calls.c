/* Stands between a program and the disk (LD_PRELOAD): writes down what it asks below one folder, or fails one call.
 *
 * Only files below `root` count. Both ways are switched on from inside the process, by the functions at the end; until
 * then everything passes through. tests/disk_calls.py compiles it, and reads and replays what it wrote down.
 *
 * A record is a line, tab-separated: operation, inode, folder's inode, name (hexadecimal), other folder's inode, other
 * name, offset, length; for W and C the data follow, as many bytes as the length says.
 *   C a new file, folder or link (name; offset 0 file, 1 folder, 2 link and its target)   W written   T set to a length
 *   S synced   R renamed   L linked   U removed   M modification time (offset seconds, length nanoseconds)
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;
static long calls, fail_at;
static int fail_errno, fail_on, watching;
static char failed_call[PATH_MAX + 64];




/* ── which files count ── */

static int below(const char *path) {
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

/* The absolute path of `path` seen from `dirfd`; 0 if it cannot be told. Not resolved: we know our own callers. */
static int absolute(int dirfd, const char *path, char *out) {
    if (!path) return 0;
    if (path[0] == '/') return snprintf(out, PATH_MAX, "%s", path) < PATH_MAX;
    char base[PATH_MAX], link[64];
    if (dirfd == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n < 0) return 0;
        base[n] = 0;
    }
    return snprintf(out, PATH_MAX, "%s/%s", base, path) < PATH_MAX;
}

static int counts(int dirfd, const char *path, char *out) {
    return watching && absolute(dirfd, path, out) && below(out);
}

static int fd_counts(int fd, char *out) {
    char link[64];
    if (!watching) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    return below(out);
}

/* Whether this is the call that fails. */
static int fails(const char *call, const char *path) {
    calls++;
    if (!fail_at || (fail_on ? calls < fail_at : calls != fail_at)) return 0;
    if (!failed_call[0]) snprintf(failed_call, sizeof failed_call, "%s %s", call, path);
    errno = fail_errno;
    return 1;
}

/* ── writing down ── */

static void put(const char *data, size_t length) {
    while (length) {
        ssize_t n = syscall(SYS_write, log_fd, data, length);
        if (n < 0) {
            if (errno == EINTR) continue;
            abort();
        }
        data += n;
        length -= (size_t)n;
    }
}

static void hex(const char *name, char *out) {
    for (; *name; name++, out += 2) sprintf(out, "%02x", (unsigned char)*name);
    *out = 0;
}

struct where {
    unsigned long dir;
    char name[2 * NAME_MAX + 2];
};

/* Folder's inode and name of a path. */
static struct where where_is(const char *path) {
    struct where found = {0, ""};
    char copy[PATH_MAX];
    struct stat status;
    snprintf(copy, sizeof copy, "%s", path);
    size_t length = strlen(copy);
    while (length > 1 && copy[length - 1] == '/') copy[--length] = 0;
    char *slash = strrchr(copy, '/');
    if (!slash) return found;
    hex(slash + 1, found.name);
    *slash = 0;
    if (fstatat(AT_FDCWD, copy[0] ? copy : "/", &status, 0) == 0) found.dir = status.st_ino;
    return found;
}

static unsigned long inode_of(const char *path) {
    struct stat status;
    return fstatat(AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status.st_ino : 0;
}

static unsigned long inode_of_fd(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

static void record(const char *op, unsigned long inode, struct where at, struct where to, long long offset,
                   long long length, const char *data) {
    if (log_fd < 0) return;
    char line[4 * NAME_MAX + 256];
    int n = snprintf(line, sizeof line, "%s\t%lu\t%lu\t%s\t%lu\t%s\t%lld\t%lld\n", op, inode, at.dir, at.name, to.dir,
                     to.name, offset, length);
    put(line, (size_t)n);
    if (data) put(data, (size_t)length);
}

static const struct where NOWHERE;

/* Every call keeps its errno, and one at a time goes through, so that the record has their order. */
#define ENTER                    \
    pthread_mutex_lock(&lock);   \
    char path[PATH_MAX] = "";    \
    (void)path;
#define LEAVE(value)             \
    int kept = errno;            \
    pthread_mutex_unlock(&lock); \
    errno = kept;                \
    return value;

/* ── opening ── */

static int opened(const char *name, int dirfd, const char *given, int flags, mode_t mode) {
    ENTER
    int mine = counts(dirfd, given, path), result;
    if (mine && fails("open", path)) {
        LEAVE(-1)
    }
    unsigned long before = mine && log_fd >= 0 ? inode_of(path) : 0;
    result = (int)syscall(SYS_openat, dirfd, given, flags, mode);
    if (mine && result >= 0 && log_fd >= 0) {
        if ((flags & O_CREAT) && !before)
            record("C", inode_of_fd(result), where_is(path), NOWHERE, 0, 0, NULL);
        else if (flags & O_TRUNC)
            record("T", inode_of_fd(result), NOWHERE, NOWHERE, 0, 0, NULL);
    }
    (void)name;
    LEAVE(result)
}

#define MODE(flags)                                    \
    mode_t mode = 0;                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {             \
        va_list more;                                  \
        va_start(more, flags);                         \
        mode = (mode_t)va_arg(more, int);              \
        va_end(more);                                  \
    }
int open(const char *path_, int flags, ...) { MODE(flags) return opened("open", AT_FDCWD, path_, flags, mode); }
int open64(const char *path_, int flags, ...) { MODE(flags) return opened("open", AT_FDCWD, path_, flags, mode); }
int openat(int fd, const char *path_, int flags, ...) { MODE(flags) return opened("open", fd, path_, flags, mode); }
int openat64(int fd, const char *path_, int flags, ...) { MODE(flags) return opened("open", fd, path_, flags, mode); }
int creat(const char *path_, mode_t mode) { return opened("open", AT_FDCWD, path_, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* ── writing ── */

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    ENTER
    int mine = fd_counts(fd, path);
    if (mine && fails("write", path)) {
        LEAVE(-1)
    }
    ssize_t n = syscall(SYS_pwrite64, fd, data, length, offset);
    if (mine && n > 0) record("W", inode_of_fd(fd), NOWHERE, NOWHERE, offset, n, data);
    LEAVE(n)
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

static off_t place_of(int fd) {
    struct stat status;
    if ((fcntl(fd, F_GETFL) & O_APPEND) && fstat(fd, &status) == 0) return status.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t length) {
    ENTER
    int mine = fd_counts(fd, path);
    if (mine && fails("write", path)) {
        LEAVE(-1)
    }
    off_t offset = mine ? place_of(fd) : 0;
    ssize_t n = syscall(SYS_write, fd, data, length);
    if (mine && n > 0) record("W", inode_of_fd(fd), NOWHERE, NOWHERE, offset, n, data);
    LEAVE(n)
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ENTER
    int mine = fd_counts(fd, path);
    if (mine && fails("write", path)) {
        LEAVE(-1)
    }
    off_t offset = mine ? place_of(fd) : 0;
    ssize_t n = syscall(SYS_writev, fd, parts, count), left = n;
    for (int i = 0; mine && i < count && left > 0; i++) {
        ssize_t part = (ssize_t)parts[i].iov_len < left ? (ssize_t)parts[i].iov_len : left;
        record("W", inode_of_fd(fd), NOWHERE, NOWHERE, offset, part, parts[i].iov_base);
        offset += part;
        left -= part;
    }
    LEAVE(n)
}

/* Copies inside the kernel: read back what came. */
static void record_copied(int fd, off_t offset, ssize_t n) {
    char block[65536];
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int reader = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
    while (reader >= 0 && n > 0) {
        ssize_t got = pread(reader, block, n < (ssize_t)sizeof block ? (size_t)n : sizeof block, offset);
        if (got <= 0) abort();
        record("W", inode_of_fd(fd), NOWHERE, NOWHERE, offset, got, block);
        offset += got;
        n -= got;
    }
    if (reader < 0) abort();
    syscall(SYS_close, reader);
}

ssize_t sendfile64(int out, int in, off64_t *from, size_t length) {
    ENTER
    int mine = fd_counts(out, path);
    if (mine && fails("write", path)) {
        LEAVE(-1)
    }
    off_t offset = mine ? place_of(out) : 0;
    ssize_t n = syscall(SYS_sendfile, out, in, from, length);
    if (mine && n > 0 && log_fd >= 0) record_copied(out, offset, n);
    LEAVE(n)
}
ssize_t sendfile(int out, int in, off_t *from, size_t length) { return sendfile64(out, in, from, length); }

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
    ENTER
    int mine = fd_counts(out, path);
    if (mine && fails("write", path)) {
        LEAVE(-1)
    }
    off_t offset = to ? *to : mine ? place_of(out) : 0;
    ssize_t n = syscall(SYS_copy_file_range, in, from, out, to, length, flags);
    if (mine && n > 0 && log_fd >= 0) record_copied(out, offset, n);
    LEAVE(n)
}

int ftruncate64(int fd, off64_t length) {
    ENTER
    int mine = fd_counts(fd, path);
    if (mine && fails("truncate", path)) {
        LEAVE(-1)
    }
    int result = (int)syscall(SYS_ftruncate, fd, length);
    if (mine && result == 0) record("T", inode_of_fd(fd), NOWHERE, NOWHERE, length, 0, NULL);
    LEAVE(result)
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

/* ── syncing ── */

static int synced(int fd, long number, const char *name) {
    ENTER
    int mine = fd_counts(fd, path);
    if (mine && fails(name, path)) {
        LEAVE(-1)
    }
    int result = (int)syscall(number, fd);
    if (mine && result == 0) record("S", inode_of_fd(fd), NOWHERE, NOWHERE, 0, 0, NULL);
    LEAVE(result)
}
int fsync(int fd) { return synced(fd, SYS_fsync, "fsync"); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync, "fsync"); }

/* ── names ── */

static int renamed(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    ENTER
    char other[PATH_MAX];
    int source = counts(from_fd, from, path), target = counts(to_fd, to, other), mine = source || target;
    if (mine && fails("rename", path)) {
        LEAVE(-1)
    }
    unsigned long inode = mine ? inode_of(path) : 0;
    struct where at = NOWHERE, into = NOWHERE;
    if (mine) at = where_is(path), into = where_is(other);
    int result = (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    if (mine && result == 0) record("R", inode, at, into, 0, 0, NULL);
    LEAVE(result)
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return renamed(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return renamed(a, from, b, to, flags); }

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    ENTER
    int mine = counts(to_fd, to, path);
    if (mine && fails("link", path)) {
        LEAVE(-1)
    }
    int result = (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
    if (mine && result == 0) record("L", inode_of(path), where_is(path), NOWHERE, 0, 0, NULL);
    LEAVE(result)
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *target, int fd, const char *given) {
    ENTER
    int mine = counts(fd, given, path);
    if (mine && fails("symlink", path)) {
        LEAVE(-1)
    }
    int result = (int)syscall(SYS_symlinkat, target, fd, given);
    if (mine && result == 0)
        record("C", inode_of(path), where_is(path), NOWHERE, 2, (long long)strlen(target), target);
    LEAVE(result)
}
int symlink(const char *target, const char *given) { return symlinkat(target, AT_FDCWD, given); }

int unlinkat(int fd, const char *given, int flags) {
    ENTER
    int mine = counts(fd, given, path);
    if (mine && fails(flags & AT_REMOVEDIR ? "rmdir" : "unlink", path)) {
        LEAVE(-1)
    }
    unsigned long inode = mine ? inode_of(path) : 0;
    struct where at = mine ? where_is(path) : NOWHERE;
    int result = (int)syscall(SYS_unlinkat, fd, given, flags);
    if (mine && result == 0) record("U", inode, at, NOWHERE, 0, 0, NULL);
    LEAVE(result)
}
int unlink(const char *given) { return unlinkat(AT_FDCWD, given, 0); }
int rmdir(const char *given) { return unlinkat(AT_FDCWD, given, AT_REMOVEDIR); }

int mkdirat(int fd, const char *given, mode_t mode) {
    ENTER
    int mine = counts(fd, given, path);
    if (mine && fails("mkdir", path)) {
        LEAVE(-1)
    }
    int result = (int)syscall(SYS_mkdirat, fd, given, mode);
    if (mine && result == 0) record("C", inode_of(path), where_is(path), NOWHERE, 1, 0, NULL);
    LEAVE(result)
}
int mkdir(const char *given, mode_t mode) { return mkdirat(AT_FDCWD, given, mode); }

/* ── times ── */

static void record_times(unsigned long inode, const struct timespec times[2]) {
    if (times && times[1].tv_nsec < 1000000000) {
        record("M", inode, NOWHERE, NOWHERE, times[1].tv_sec, times[1].tv_nsec, NULL);
    }
}
int utimensat(int fd, const char *given, const struct timespec times[2], int flags) {
    ENTER
    int mine = given ? counts(fd, given, path) : fd_counts(fd, path);
    int result = (int)syscall(SYS_utimensat, fd, given, times, flags);
    if (mine && result == 0) record_times(inode_of(path), times);
    LEAVE(result)
}
int futimens(int fd, const struct timespec times[2]) {
    ENTER
    int mine = fd_counts(fd, path);
    int result = (int)syscall(SYS_utimensat, fd, NULL, times, 0);
    if (mine && result == 0) record_times(inode_of_fd(fd), times);
    LEAVE(result)
}

/* ── switched on from inside ── */

static void watch(const char *folder) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    calls = fail_at = 0;
    failed_call[0] = 0;
    watching = 1;
}

/* Write down all that is asked below `folder` from now on. */
void disk_calls_record(const char *folder, const char *log) {
    pthread_mutex_lock(&lock);
    watch(folder);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) abort();
    pthread_mutex_unlock(&lock);
}

/* Fail the n-th call below `folder` from now on with this errno; with `on`, all after it too. n = 0 only counts. */
void disk_calls_fail(const char *folder, long n, int number, int on) {
    pthread_mutex_lock(&lock);
    watch(folder);
    log_fd = -1;
    fail_at = n;
    fail_errno = number;
    fail_on = on;
    pthread_mutex_unlock(&lock);
}

/* How many calls there were, and which one failed. */
long disk_calls_count(void) { return calls; }
const char *disk_calls_failed(void) { return failed_call; }
