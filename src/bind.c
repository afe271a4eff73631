#include "bind.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 4096 /* the kernel lowers it to net.core.somaxconn */

static int set_option(int fd, int level, int name, unsigned value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

/* Closes what has been made; errno stays. -1. */
static int give_up(int *fds, size_t made)
{
    int error = errno;
    while (made > 0)
        close(fds[--made]);
    errno = error;
    return -1;
}

/* --- TCP -------------------------------------------------------------------------------------------------------- */

static int tune_tcp(int fd, const struct bind_options *options)
{
    if (set_option(fd, SOL_SOCKET, SO_KEEPALIVE, options->keepalive > 0) < 0 ||
        (options->keepalive > 0 && set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, options->keepalive) < 0) ||
        set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, options->defer_accept) < 0)
        return -1;
    /* the kernel may be without it, which is no matter to who does not want it */
    return set_option(fd, IPPROTO_TCP, TCP_FASTOPEN, options->fastopen) < 0 && options->fastopen > 0 ? -1 : 0;
}

static int bind_tcp(int fd, const struct address *address, const struct bind_options *options, bool shared)
{
    bool v6 = address->sa.any.sa_family == AF_INET6;
    size_t name = strlen(options->interface);
    if (set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) < 0 || set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) < 0 ||
        (v6 && set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) < 0) ||
        (shared && set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) < 0) ||
        (options->freebind && set_option(fd, IPPROTO_IP, IP_FREEBIND, 1) < 0) ||
        (name > 0 && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, options->interface, (socklen_t)name) < 0) ||
        tune_tcp(fd, options) < 0)
        return -1;
    return bind(fd, &address->sa.any, address->len);
}

/* A new listening socket; accepted sockets inherit its options. */
static int open_tcp(const struct address *address, const struct bind_options *options, bool shared)
{
    int fd = socket(address->sa.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (bind_tcp(fd, address, options, shared) < 0 || listen(fd, BACKLOG) < 0))
        return give_up(&fd, 1);
    return fd;
}

/*
 * The first socket listens without SO_REUSEPORT, so that it fails when anybody else listens there. It gets the option
 * when the address is ours, so that the others can join it: two daemons that start at one moment cannot share.
 */
int bind_listen(const struct address *address, const struct bind_options *options, int *fds, size_t count)
{
    struct address bound = { .len = sizeof bound.sa }; /* port 0 becomes the kernel's choice */
    size_t made = 1;
    fds[0] = open_tcp(address, options, false);
    if (fds[0] < 0)
        return -1;
    if (getsockname(fds[0], &bound.sa.any, &bound.len) < 0 ||
        (count > 1 && set_option(fds[0], SOL_SOCKET, SO_REUSEPORT, 1) < 0))
        return give_up(fds, made);
    for (; made < count; made++)
        if ((fds[made] = open_tcp(&bound, options, true)) < 0)
            return give_up(fds, made);
    return 0;
}

/* --- Unix sockets ----------------------------------------------------------------------------------------------- */

static socklen_t unix_address(const char *path, struct sockaddr_un *un)
{
    size_t len = strlen(path);
    *un = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(un->sun_path, path, len < sizeof un->sun_path ? len : sizeof un->sun_path);
    if (path[0] == '@')
        un->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] != '@'));
}

static int open_unix(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* Removes a socket at the path on which nobody listens. 0 if nothing is there now, or -1 with errno. */
static int remove_stale(const struct sockaddr_un *un, socklen_t len)
{
    struct stat status;
    int fd, error = 0;
    if (lstat(un->sun_path, &status) < 0)
        return errno == ENOENT ? 0 : -1;
    if (!S_ISSOCK(status.st_mode)) {
        errno = EEXIST;
        return -1;
    }
    fd = open_unix();
    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)un, len) == 0 || errno == EAGAIN)
        error = EADDRINUSE;
    else if (errno != ECONNREFUSED)
        error = errno;
    close(fd);
    errno = error;
    return error == 0 ? unlink(un->sun_path) : -1;
}

/* By descriptor: another file may stand there now, put by who may write to the folder. */
static int own_path(const struct bind_path *made, const struct bind_options *options)
{
    char self[32];
    struct stat status;
    int fd = open(made->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return give_up(&fd, fd >= 0);
    if (status.st_dev != made->device || status.st_ino != made->inode) {
        errno = ESTALE;
        return give_up(&fd, 1);
    }
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    bool given = options->owner != (uid_t)-1 || options->group != (gid_t)-1; /* else a filter may forbid to ask */
    if ((given && fchownat(fd, "", options->owner, options->group, AT_EMPTY_PATH) < 0) ||
        chmod(self, options->mode) < 0)
        return give_up(&fd, 1);
    close(fd);
    return 0;
}

/* Binds to a path. It has no more rights than it will have at any moment. */
static int bind_path(int fd, const struct sockaddr_un *un, socklen_t len, const struct bind_options *options,
                     struct bind_path *made)
{
    struct stat status;
    if (remove_stale(un, len) < 0 || fchmod(fd, options->mode & 0700) < 0 ||
        bind(fd, (const struct sockaddr *)un, len) < 0)
        return -1;
    if (lstat(un->sun_path, &status) < 0)
        return -1;
    memcpy(made->path, un->sun_path, sizeof made->path);
    made->device = status.st_dev;
    made->inode = status.st_ino;
    return listen(fd, BACKLOG) < 0 ? -1 : own_path(made, options);
}

/*
 * Of two processes that replace a path at one moment, one waits: the other holds an abstract name made of the path. Who
 * makes us wait for longer than a second in a minute is none of these, and nobody to wait for. The descriptor, or -1.
 */
static int lock_path(const char *path)
{
    static _Thread_local time_t minute; /* one thread binds, but for tests */
    static _Thread_local int tries;
    struct sockaddr_un un;
    char name[sizeof un.sun_path];
    int fd = open_unix();
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec - minute >= 60) {
        minute = now.tv_sec;
        tries = 0;
    }
    snprintf(name, sizeof name, "@echod-bind:%s", path);
    socklen_t len = unix_address(name, &un);
    while (fd >= 0 && bind(fd, (const struct sockaddr *)&un, len) < 0) {
        if (errno != EADDRINUSE || tries == 100)
            return give_up(&fd, 1);
        tries++;
        usleep(10000);
    }
    return fd;
}

static int bind_unix(int fd, const char *path, const struct bind_options *options, struct bind_path *made)
{
    struct sockaddr_un un;
    socklen_t len = unix_address(path, &un);
    *made = (struct bind_path){ .path = "" };
    if (path[0] == '@')
        return bind(fd, (const struct sockaddr *)&un, len) < 0 ? -1 : listen(fd, BACKLOG);
    int lock = lock_path(path), result = bind_path(fd, &un, len, options, made), error = errno;
    if (result < 0)
        bind_unlink(made);
    if (lock >= 0)
        close(lock);
    errno = error;
    return result;
}

int bind_listen_unix(const char *path, const struct bind_options *options, int *fds, size_t count,
                     struct bind_path *made)
{
    size_t copies = 1;
    fds[0] = open_unix();
    if (fds[0] < 0)
        return -1;
    if (bind_unix(fds[0], path, options, made) < 0)
        return give_up(fds, copies);
    for (; copies < count; copies++)
        if ((fds[copies] = fcntl(fds[0], F_DUPFD_CLOEXEC, 3)) < 0) {
            bind_unlink(made);
            return give_up(fds, copies);
        }
    return 0;
}

bool bind_stands(const struct bind_path *made)
{
    struct stat status;
    int error = errno;
    bool stands = made->path[0] == '\0' ||
                  (lstat(made->path, &status) == 0 && status.st_dev == made->device && status.st_ino == made->inode);
    errno = error;
    return stands;
}

void bind_unlink(const struct bind_path *made)
{
    int error = errno;
    if (made->path[0] != '\0' && bind_stands(made))
        unlink(made->path);
    errno = error;
}

int bind_tune(int fd, const struct bind_path *made, const struct bind_options *options)
{
    int family;
    socklen_t len = sizeof family;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) < 0)
        return -1;
    if (family != AF_UNIX)
        return tune_tcp(fd, options);
    return made->path[0] != '\0' ? own_path(made, options) : 0;
}
