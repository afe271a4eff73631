#include "config.h"

#include "inifile.h"
#include "log.h"
#include "text.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES (1 << 20)
#define ADDRESSES_MAX  63 /* a listener */
#define NAME_MAX_BYTES 32
#define HANDLERS_MAX   16
#define LINE_MAX_BYTES 198 /* as the reader takes it */

#define UNIX                "unix:"
#define INHERITED           "systemd:"
#define INHERITED_MAX_BYTES 64

static const struct option_row server_options[] = {
    NUMBER_ROW("threads", struct server_settings, threads, "1", 1, THREADS_MAX, "auto",
               "event loops; auto: one a core"),
    NUMBER_ROW("max_connections", struct server_settings, max_connections, "10000", 1, 10000000, NULL,
               "open at once; one more is closed at once"),
    NUMBER_ROW("max_connections_per_address", struct server_settings, max_connections_per_address, "unlimited", 1,
               10000000, "unlimited", "open at once from one address"),
    NUMBER_ROW("address_prefix_v4", struct server_settings, address_prefix_v4, "32", 1, 32, NULL,
               "bits of an IPv4 address that tell one from another there"),
    NUMBER_ROW("address_prefix_v6", struct server_settings, address_prefix_v6, "64", 1, 128, NULL,
               "the same of an IPv6 address"),
    TIME_ROW("drain_delay", struct server_settings, drain_delay, "0", 1, OPTION_DAY, "0",
             "how long a stop goes on accepting, not ready any more"),
    TIME_ROW("drain_timeout", struct server_settings, drain_timeout, "30s", 1, OPTION_DAY, NULL,
             "how long a stop waits for what is in flight"),
    WORD_ROW("log_level", struct server_settings, log_level, "info", log_level_words, "the least that is logged"),
    WORD_ROW("log_format", struct server_settings, log_format, "text", log_format_words,
             "of the log and the access log"),
    TEXT_ROW("access_log", struct server_settings, access_log, "off", 1, 180,
             "a line a request: off, stderr, or a file's absolute path"),
    { 0 },
};

static const char *const proxy_words[] = { "off", "required", NULL };
static const char *const switch_words[] = { "off", "on", NULL };

static const struct option_row listener_options[] = {
    TEXT_ROW("address", struct listener_settings, address, NULL, 1, 180,
             "HOST:PORT, [V6]:PORT, unix:PATH or systemd:NAME, several with commas; port 0: any free one"),
    TEXT_ROW("handler", struct listener_settings, handler, NULL, 1, 64, "what answers"),
    TIME_ROW("idle_timeout", struct listener_settings, idle_timeout, "10m", 1, OPTION_DAY, NULL,
             "closes a connection on which no byte moved for so long"),
    NUMBER_ROW("max_connections", struct listener_settings, max_connections, "unlimited", 1, 10000000, "unlimited",
               "open at once; one more is closed at once"),
    NUMBER_ROW("accept_rate", struct listener_settings, accept_rate, "unlimited", 1, 1000000, "unlimited",
               "connections a second; one more is closed at once"),
    WORD_ROW("proxy_protocol", struct listener_settings, proxy_protocol, "off", proxy_words,
             "whether each connection begins with a PROXY header"),
    TEXT_ROW("proxy_trusted", struct listener_settings, proxy_trusted, "127.0.0.0/8, ::1, unix", 1, 180,
             "addresses and prefixes that may send one"),
    TIME_ROW("handshake_timeout", struct listener_settings, handshake_timeout, "10s", 1, OPTION_DAY, NULL,
             "for the PROXY header and the TLS handshake together"),
    TEXT_ROW("socket_mode", struct listener_settings, socket_mode, "0660", 3, 4, "rights at the path of a unix socket"),
    TEXT_ROW("socket_owner", struct listener_settings, socket_owner, "", 0, 32, "its owner; empty: who runs echod"),
    TEXT_ROW("socket_group", struct listener_settings, socket_group, "", 0, 32, "its group; empty: of who runs echod"),
    TEXT_ROW("interface", struct listener_settings, interface, "", 0, 15, "the only one to listen on; empty: any"),
    WORD_ROW("freebind", struct listener_settings, freebind, "off", switch_words,
             "whether the address may be none of this machine yet"),
    TIME_ROW("tcp_keepalive", struct listener_settings, tcp_keepalive, "off", 1000, 32767000, "off",
             "silence after which the kernel asks whether the peer is there"),
    TIME_ROW("tcp_defer_accept", struct listener_settings, tcp_defer_accept, "off", 1000, 3600000, "off",
             "how long a connection may wait for its first byte before it is accepted"),
    NUMBER_ROW("tcp_fastopen", struct listener_settings, tcp_fastopen, "off", 1, 65535, "off",
               "connections that may wait with bytes in their SYN"),
    { 0 },
};

#define BUILTIN_NAME "built-in defaults"

struct config {
    char *path; /* NULL: the built-in defaults */
    struct inifile file;
    struct server_settings server;
    struct config_listener *listeners;
    size_t count;
};

/* The keys of one section are those of one or two tables, each with the struct it fills. */
struct binding {
    const struct option_row *table;
    void *settings;
};

struct error {
    unsigned line;
    bool warning;
    char *sentence;
};

struct reading {
    struct config *config;
    const struct handler *const *handlers;
    struct error *errors;
    size_t error_count;
    size_t failures; /* errors that are no warnings */
};

static void add_report(struct reading *l, unsigned line, bool warning, const char *sentence)
{
    struct error *grown = realloc(l->errors, (l->error_count + 1) * sizeof *grown);
    if (grown == NULL)
        return;
    l->errors = grown;
    size_t at = l->error_count++; /* sorted by line, and as they came within one */
    for (; at > 0 && grown[at - 1].line > line; at--)
        grown[at] = grown[at - 1];
    grown[at] = (struct error){ .line = line, .warning = warning, .sentence = strdup(sentence) };
}

static void add_error(void *arg, unsigned line, const char *sentence)
{
    struct reading *l = arg;
    l->failures++;
    add_report(l, line, false, sentence);
}

__attribute__((format(printf, 3, 4))) static void fail(struct reading *l, unsigned line, const char *format, ...)
{
    char sentence[512];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    add_error(l, line, sentence);
}

/* Appends `; did you mean "x"?` to a sentence when a row of the tables is close. */
static void suggest_row(char *sentence, size_t size, const char *key, const struct binding *bindings)
{
    const char *best = NULL;
    unsigned least = 3;
    for (; bindings->table != NULL; bindings++)
        for (const struct option_row *row = bindings->table; row->name != NULL; row++)
            if (text_distance(key, row->name) < least) {
                least = text_distance(key, row->name);
                best = row->name;
            }
    size_t len = strlen(sentence);
    if (best != NULL)
        snprintf(sentence + len, size - len, "; did you mean \"%s\"?", best);
}

static const struct inifile_entry *find_entry(const struct inifile_section *section, const char *key)
{
    for (size_t i = 0; section != NULL && i < section->count; i++)
        if (strcmp(section->entries[i].key, key) == 0)
            return &section->entries[i];
    return NULL;
}

static void apply_row(struct reading *l, const struct inifile_section *section, const struct option_row *row,
                      const struct binding *binding)
{
    char err[256];
    const struct inifile_entry *entry = find_entry(section, row->name);
    if (entry == NULL && row->fallback == NULL)
        fail(l, section->line, "[%s] lacks the key %s", section->name, row->name);
    else if (option_parse(row, entry != NULL ? entry->value : row->fallback, binding->settings, err, sizeof err) < 0)
        fail(l, entry != NULL ? entry->line : 0, "%s: %s", row->name, err);
}

/* Fills the structs from the section. section NULL: all defaults. */
static void apply_section(struct reading *l, const struct inifile_section *section, const struct binding *bindings)
{
    for (; bindings->table != NULL; bindings++)
        for (const struct option_row *row = bindings->table; row->name != NULL; row++)
            apply_row(l, section, row, bindings);
}

/* Refuses the keys that no table knows. */
static void check_keys(struct reading *l, const struct inifile_section *section, const struct binding *bindings)
{
    for (size_t i = 0; section != NULL && i < section->count; i++) {
        const struct inifile_entry *entry = &section->entries[i];
        bool known = false;
        for (const struct binding *b = bindings; b->table != NULL; b++)
            known = known || option_find(b->table, entry->key) != NULL;
        if (!known) {
            char sentence[512];
            snprintf(sentence, sizeof sentence, "unknown key \"%s\" in [%s]", entry->key, section->name);
            suggest_row(sentence, sizeof sentence, entry->key, bindings);
            add_error(l, entry->line, sentence);
        }
    }
}

static void load_server(struct reading *l, const struct inifile_section *section)
{
    struct server_settings *server = &l->config->server;
    const struct binding bindings[] = { { server_options, server }, { 0 } };
    apply_section(l, section, bindings);
    check_keys(l, section, bindings);
    const char *log = server->access_log;
    const struct inifile_entry *entry = find_entry(section, "access_log");
    if (log != NULL && strcmp(log, "off") != 0 && strcmp(log, "stderr") != 0 && log[0] != '/')
        fail(l, entry != NULL ? entry->line : 0, "access_log: \"%s\" is not off, stderr, or an absolute path", log);
}

/* Room for one more address. NULL, and told, when there is none. */
static struct config_address *add_address(struct reading *l, struct config_listener *listener)
{
    if (listener->address_count < ADDRESSES_MAX)
        return &listener->addresses[listener->address_count++];
    fail(l, listener->address_line, "address: more than %d addresses", ADDRESSES_MAX);
    return NULL;
}

/* unix:PATH or unix:@NAME */
static void load_unix(struct reading *l, struct config_listener *listener, const char *path)
{
    struct config_address *added;
    size_t most = sizeof((struct bind_path *)0)->path - 1, len = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || path[1] == '\0')
        fail(l, listener->address_line, "address: \"" UNIX "%s\" is not unix:/PATH or unix:@NAME", path);
    else if (len > most)
        fail(l, listener->address_line, "address: \"" UNIX "%s\" is longer than %zu bytes", path, most);
    else if ((added = add_address(l, listener)) != NULL)
        added->path = path;
}

/* systemd:NAME. The name is the rest of the file's own text, which ends at the comma that was cut. */
static void load_inherited(struct reading *l, struct config_listener *listener, const char *name)
{
    struct config_address *added;
    size_t len = strlen(name);
    if (len == 0 || len > INHERITED_MAX_BYTES || strchr(name, ':') != NULL || strpbrk(name, " \t") != NULL)
        fail(l, listener->address_line, "address: \"%s%s\" is not systemd:NAME", INHERITED, name);
    else if ((added = add_address(l, listener)) != NULL)
        added->inherited = name;
}

static void load_resolved(struct reading *l, struct config_listener *listener, const char *text)
{
    struct address found[ADDRESSES_MAX + 1]; /* one too many is told */
    struct config_address *added;
    char err[256];
    int n = address_parse(text, found, ADDRESSES_MAX + 1, err, sizeof err);
    if (n < 0)
        fail(l, listener->address_line, "address: %s", err);
    for (int i = 0; i < n && (added = add_address(l, listener)) != NULL; i++)
        added->address = found[i];
}

/* Reads the comma list, which is cut into its parts, and resolves names. */
static void load_addresses(struct reading *l, struct config_listener *listener)
{
    char *rest = listener->address_list = strdup(listener->settings.address);
    listener->addresses = calloc(ADDRESSES_MAX, sizeof *listener->addresses);
    if (rest == NULL || listener->addresses == NULL) {
        fail(l, listener->address_line, "out of memory");
        return;
    }
    for (char *item = strsep(&rest, ","); item != NULL; item = strsep(&rest, ",")) {
        item += strspn(item, " \t");
        for (size_t len = strlen(item); len > 0 && (item[len - 1] == ' ' || item[len - 1] == '\t'); len--)
            item[len - 1] = '\0';
        if (strncmp(item, INHERITED, strlen(INHERITED)) == 0)
            load_inherited(l, listener, item + strlen(INHERITED));
        else if (strncmp(item, UNIX, strlen(UNIX)) == 0)
            load_unix(l, listener, item + strlen(UNIX));
        else
            load_resolved(l, listener, item);
    }
}

const char *config_address_format(const struct config_address *a, char buf[ADDRESS_SOCKET_TEXT])
{
    if (a->path == NULL && a->inherited == NULL)
        return address_format(&a->address, buf);
    snprintf(buf, ADDRESS_SOCKET_TEXT, "%s%s", a->path != NULL ? UNIX : INHERITED,
             a->path != NULL ? a->path : a->inherited);
    return buf;
}

static bool overlaps(const struct config_address *a, const struct config_address *b)
{
    if (a->inherited != NULL && b->inherited != NULL)
        return strcmp(a->inherited, b->inherited) == 0;
    if (a->path != NULL && b->path != NULL)
        return strcmp(a->path, b->path) == 0;
    return a->inherited == NULL && b->inherited == NULL && a->path == NULL && b->path == NULL &&
           address_overlaps(&a->address, &b->address);
}

static void check_overlap(struct reading *l, const struct config_listener *listener, size_t index)
{
    const struct config_address *a = &listener->addresses[index];
    char text[ADDRESS_SOCKET_TEXT], other_text[ADDRESS_SOCKET_TEXT];
    for (const struct config_listener *other = l->config->listeners; other <= listener; other++)
        for (size_t i = 0; i < (other == listener ? index : other->address_count); i++)
            if (overlaps(a, &other->addresses[i])) {
                config_address_format(a, text);
                config_address_format(&other->addresses[i], other_text);
                if (other == listener)
                    fail(l, listener->address_line, "address: %s stands beside %s", text, other_text);
                else
                    fail(l, listener->address_line, "address: %s is taken by %s of [listener %s]", text, other_text,
                         other->name);
                return;
            }
}

static bool name_is_sound(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
    return len > 0 && len <= NAME_MAX_BYTES && name[len] == '\0';
}

static void unknown_handler(struct reading *l, unsigned line, const char *name)
{
    char sentence[512];
    int n = snprintf(sentence, sizeof sentence, "handler: \"%s\" is not known; there are", name);
    for (size_t i = 0; l->handlers[i] != NULL && (size_t)n < sizeof sentence; i++)
        n += snprintf(sentence + n, sizeof sentence - (size_t)n, "%s %s", i > 0 ? "," : "", l->handlers[i]->name);
    for (size_t i = 0; l->handlers[i] != NULL && (size_t)n < sizeof sentence; i++)
        if (text_distance(name, l->handlers[i]->name) < 3)
            n += snprintf(sentence + n, sizeof sentence - (size_t)n, "; did you mean \"%s\"?", l->handlers[i]->name);
    add_error(l, line, sentence);
}

/* Which handler is meant is not known: refuses the keys that none has. */
static void check_any_keys(struct reading *l, const struct inifile_section *section)
{
    struct binding bindings[HANDLERS_MAX + 3] = { { listener_options, NULL }, { tls_options, NULL } };
    size_t count = 2;
    for (size_t i = 0; l->handlers[i] != NULL && count < HANDLERS_MAX + 2; i++)
        if (l->handlers[i]->options != NULL)
            bindings[count++].table = l->handlers[i]->options;
    check_keys(l, section, bindings);
}

/* The line of a key, or else of its section. */
static unsigned line_of(const struct inifile_section *section, const char *key)
{
    const struct inifile_entry *entry = find_entry(section, key);
    return entry != NULL ? entry->line : section->line;
}

static void load_trusted(struct reading *l, const struct inifile_section *section, struct config_listener *listener)
{
    char err[256];
    listener->trusted_count =
        prefix_parse(listener->settings.proxy_trusted, listener->trusted, CONFIG_TRUSTED, err, sizeof err);
    if (listener->trusted_count < 0)
        fail(l, line_of(section, "proxy_trusted"), "proxy_trusted: %s", err);
}

static void load_mode(struct reading *l, const struct inifile_section *section, struct config_listener *listener)
{
    const char *text = listener->settings.socket_mode;
    if (text[strspn(text, "01234567")] != '\0' || strtoul(text, NULL, 8) > 0777)
        fail(l, line_of(section, "socket_mode"), "socket_mode: \"%s\" is not an octal number up to 0777", text);
    listener->bind.mode = (mode_t)strtoul(text, NULL, 8);
}

/* A number, or a name that the system knows; -1 for an empty text. False when it is neither. */
static bool find_id(const char *text, bool group, unsigned *id)
{
    *id = (unsigned)-1;
    if (text[0] == '\0')
        return true;
    if (text[strspn(text, "0123456789")] == '\0') {
        *id = (unsigned)strtoul(text, NULL, 10);
        return strtoul(text, NULL, 10) < (unsigned)-1;
    }
    /* used by one thread while it loads: NOLINTBEGIN(concurrency-mt-unsafe) */
    const struct passwd *owner = group ? NULL : getpwnam(text);
    const struct group *found = group ? getgrnam(text) : NULL;
    /* NOLINTEND(concurrency-mt-unsafe) */
    if (owner != NULL)
        *id = owner->pw_uid;
    else if (found != NULL)
        *id = found->gr_gid;
    return owner != NULL || found != NULL;
}

/* As the kernel counts them. */
static unsigned load_seconds(struct reading *l, const struct inifile_section *section, const char *key, uint64_t time)
{
    if (time % 1000 != 0)
        fail(l, line_of(section, key), "%s: not a whole number of seconds", key);
    return (unsigned)(time / 1000);
}

static void load_bind(struct reading *l, const struct inifile_section *section, struct config_listener *listener)
{
    const struct listener_settings *settings = &listener->settings;
    listener->bind = (struct bind_options){ .interface = settings->interface,
                                            .freebind = settings->freebind != 0,
                                            .fastopen = (unsigned)settings->tcp_fastopen };
    listener->bind.keepalive = load_seconds(l, section, "tcp_keepalive", settings->tcp_keepalive);
    listener->bind.defer_accept = load_seconds(l, section, "tcp_defer_accept", settings->tcp_defer_accept);
    load_mode(l, section, listener);
    if (!find_id(settings->socket_owner, false, &listener->bind.owner))
        fail(l, line_of(section, "socket_owner"), "socket_owner: there is no user \"%s\"", settings->socket_owner);
    if (!find_id(settings->socket_group, true, &listener->bind.group))
        fail(l, line_of(section, "socket_group"), "socket_group: there is no group \"%s\"", settings->socket_group);
}

/* Whether some address is bound here at a path (or else over TCP). */
static bool binds(const struct config_listener *listener, bool path)
{
    for (size_t i = 0; i < listener->address_count; i++) {
        const struct config_address *a = &listener->addresses[i];
        if (path ? a->path != NULL && a->path[0] == '/' : a->path == NULL && a->inherited == NULL)
            return true;
    }
    return false;
}

/* Refuses keys about sockets that the listener has none of, for who wrote them expects something of them. */
static void check_sockets(struct reading *l, const struct inifile_section *section,
                          const struct config_listener *listener)
{
    static const struct {
        const char *key;
        bool path;
    } rows[] = {
        { "socket_mode", true }, { "socket_owner", true },   { "socket_group", true },      { "interface", false },
        { "freebind", false },   { "tcp_keepalive", false }, { "tcp_defer_accept", false }, { "tcp_fastopen", false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct inifile_entry *entry = find_entry(section, rows[i].key);
        if (entry != NULL && !binds(listener, rows[i].path) &&
            strcmp(entry->value, option_find(listener_options, rows[i].key)->fallback) != 0)
            fail(l, entry->line, "%s: needs an address %s", rows[i].key, rows[i].path ? "unix:/PATH" : "HOST:PORT");
    }
}

/* What a sentence of tls_load() is about: it begins with the key. */
static unsigned line_of_sentence(const struct inifile_section *section, const char *sentence)
{
    char key[64];
    snprintf(key, sizeof key, "%.*s", (int)strcspn(sentence, ":"), sentence);
    return line_of(section, key);
}

struct tls_place {
    struct reading *reading;
    const struct inifile_section *section;
};

static void on_tls_warning(void *arg, const char *sentence)
{
    const struct tls_place *place = arg;
    add_report(place->reading, line_of_sentence(place->section, sentence), true, sentence);
}

static void load_tls(struct reading *l, const struct inifile_section *section, struct config_listener *listener)
{
    struct tls_place place = { l, section };
    char err[512];
    if (tls_load(&listener->tls_settings, listener->name, listener->handler->alpn, &listener->tls, on_tls_warning,
                 &place, err, sizeof err) < 0)
        add_error(l, line_of_sentence(section, err), err);
}

/* The keys of the section, once it is known which there are. */
static void load_keys(struct reading *l, const struct inifile_section *section, struct config_listener *listener)
{
    if (listener->handler != NULL &&
        (listener->handler_settings = calloc(1, listener->handler->settings_size + 1)) == NULL) {
        fail(l, section->line, "out of memory");
        return;
    }
    const struct binding bindings[] = {
        { listener_options, &listener->settings },
        { tls_options, &listener->tls_settings },
        { listener->handler != NULL ? listener->handler->options : NULL, listener->handler_settings },
        { 0 },
    };
    apply_section(l, section, bindings);
    if (listener->handler != NULL)
        check_keys(l, section, bindings);
    else
        check_any_keys(l, section);
}

static void load_listener(struct reading *l, const struct inifile_section *section)
{
    struct config_listener *listener = &l->config->listeners[l->config->count++];
    const struct inifile_entry *handler = find_entry(section, "handler");
    size_t failures = l->failures;
    char err[256];
    listener->name = section->name + strlen("listener ");
    if (!name_is_sound(listener->name))
        fail(l, section->line, "\"%s\" is no name for a listener: up to %d letters, digits, and _ . -", listener->name,
             NAME_MAX_BYTES);
    listener->handler = handler != NULL ? handler_find(l->handlers, handler->value) : NULL;
    load_keys(l, section, listener);
    if (listener->handler == NULL && handler != NULL && handler->value[0] != '\0')
        unknown_handler(l, handler->line, handler->value);
    if (listener->settings.address != NULL) {
        listener->address_line = line_of(section, "address");
        load_addresses(l, listener);
        for (size_t i = 0; i < listener->address_count; i++)
            check_overlap(l, listener, i);
    }
    if (listener->settings.proxy_trusted != NULL)
        load_trusted(l, section, listener);
    if (l->failures > failures || listener->handler == NULL)
        return;
    load_bind(l, section, listener);
    check_sockets(l, section, listener);
    load_tls(l, section, listener);
    if (l->failures == failures && listener->handler->start != NULL &&
        listener->handler->start(listener->handler_settings, &listener->shared, err, sizeof err) < 0)
        fail(l, section->line, "%s", err);
}

static void unknown_section(struct reading *l, const struct inifile_section *section)
{
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(section->name, " "), section->name);
    fail(l, section->line, "unknown section [%s]; %s", section->name,
         text_distance(word, "server") < 3     ? "did you mean [server]?"
         : text_distance(word, "listener") < 3 ? "did you mean [listener NAME]?"
                                               : "there are [server] and [listener NAME]");
}

static void load_sections(struct reading *l)
{
    struct inifile *file = &l->config->file;
    const struct inifile_section *server = NULL;
    for (size_t i = 0; i < file->count; i++) {
        const struct inifile_section *section = &file->sections[i];
        if (strcmp(section->name, "server") == 0)
            server = section;
        else if (strncmp(section->name, "listener ", 9) == 0)
            load_listener(l, section);
        else if (strcmp(section->name, "listener") == 0)
            fail(l, section->line, "[listener] needs a name, as in [listener web]");
        else
            unknown_section(l, section);
    }
    load_server(l, server);
    if (l->config->count == 0)
        fail(l, file->lines, "the file ends without a [listener NAME] section");
}

/* The whole file, NULL with errno when it cannot be read. */
static char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "re");
    char *text = f != NULL ? malloc(FILE_MAX_BYTES + 1) : NULL;
    int error = errno;
    if (text != NULL) {
        *len = fread(text, 1, FILE_MAX_BYTES + 1, f);
        error = ferror(f) ? errno : 0;
    }
    if (f != NULL)
        fclose(f);
    if (error != 0 || text == NULL) {
        free(text);
        errno = error;
        return NULL;
    }
    return text;
}

static void load_text(struct reading *l, const char *text, size_t len)
{
    struct config *config = l->config;
    if (len > FILE_MAX_BYTES) {
        fail(l, 0, "the file is larger than %d bytes", FILE_MAX_BYTES);
        return;
    }
    if (inifile_read(&config->file, text, len, add_error, l) < 0 ||
        (config->listeners = calloc(config->file.count + 1, sizeof *config->listeners)) == NULL) {
        fail(l, 0, "out of memory");
        return;
    }
    load_sections(l);
}

static void report_errors(struct reading *l, const char *path, config_report *report, void *arg)
{
    char line[1024];
    for (size_t i = 0; i < l->error_count; i++) {
        snprintf(line, sizeof line, "%s:%u: %s%s", path, l->errors[i].line, l->errors[i].warning ? "warning: " : "",
                 l->errors[i].sentence != NULL ? l->errors[i].sentence : "out of memory");
        report(arg, l->errors[i].warning, line);
        free(l->errors[i].sentence);
    }
    free(l->errors);
}

struct config *config_load(const char *path, const char *builtin, const struct handler *const *handlers,
                           config_report *report, void *arg)
{
    struct config *config = calloc(1, sizeof *config);
    struct reading l = { .config = config, .handlers = handlers };
    if (config == NULL || (path != NULL && (config->path = strdup(path)) == NULL)) {
        free(config);
        report(arg, false, "out of memory");
        return NULL;
    }
    size_t len = strlen(builtin);
    char *text = path != NULL ? read_file(path, &len) : NULL;
    if (path != NULL && text == NULL)
        fail(&l, 0, "cannot be read: %s", log_errno(errno).text);
    else
        load_text(&l, path != NULL ? text : builtin, len);
    free(text);
    report_errors(&l, config_path(config), report, arg);
    if (l.failures > 0) {
        config_free(config);
        return NULL;
    }
    return config;
}

const char *config_path(const struct config *config)
{
    return config->path != NULL ? config->path : BUILTIN_NAME;
}

const struct server_settings *config_server(const struct config *config)
{
    return &config->server;
}

const struct config_listener *config_listeners(const struct config *config, size_t *count)
{
    *count = config->count;
    return config->listeners;
}

/* The origin goes behind the setting, or in front of it where the line would get too long to be read back. */
static void dump_line(const char *line, const char *path, const char *origin, FILE *out)
{
    if (strlen(line) + strlen(path) + strlen(origin) < LINE_MAX_BYTES - 40)
        fprintf(out, "%-40s ; %s%s\n", line, path, origin);
    else
        fprintf(out, "; %.*s%s:\n%s\n", LINE_MAX_BYTES - 40, path, origin, line);
}

static void dump_section(const struct config *config, const struct inifile_section *section,
                         const struct binding *bindings, FILE *out)
{
    for (; bindings->table != NULL; bindings++)
        for (const struct option_row *row = bindings->table; row->name != NULL; row++) {
            char value[256], line[320], origin[64] = "default";
            const struct inifile_entry *entry = find_entry(section, row->name);
            option_format(row, bindings->settings, value, sizeof value);
            snprintf(line, sizeof line, value[0] == ';' ? "%s=%s" : "%s = %s", row->name, value);
            if (entry != NULL && config->path != NULL)
                snprintf(origin, sizeof origin, ":%u", entry->line);
            dump_line(line, origin[0] == ':' ? config->path : "", origin, out);
        }
}

static const struct inifile_section *find_section(const struct config *config, const char *kind, const char *name)
{
    size_t skip = strlen(kind);
    for (size_t i = 0; i < config->file.count; i++)
        if (strncmp(config->file.sections[i].name, kind, skip) == 0 &&
            strcmp(config->file.sections[i].name + skip, name) == 0)
            return &config->file.sections[i];
    return NULL;
}

unsigned config_server_line(const struct config *config, const char *key)
{
    const struct inifile_section *section = find_section(config, "server", "");
    return section != NULL ? line_of(section, key) : 0;
}

unsigned config_listener_line(const struct config *config, const struct config_listener *listener, const char *key)
{
    return line_of(find_section(config, "listener ", listener->name), key);
}

void config_dump(const struct config *config, FILE *out)
{
    /* the cast: a binding serves reading and writing; dumping only reads */
    const struct binding server[] = { { server_options, (void *)&config->server }, { 0 } };
    fputs("[server]\n", out);
    dump_section(config, find_section(config, "server", ""), server, out);
    for (size_t i = 0; i < config->count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        const struct binding bindings[] = {
            { listener_options, (void *)&listener->settings },
            { tls_options, (void *)&listener->tls_settings },
            { listener->handler->options, listener->handler_settings },
            { 0 },
        };
        fprintf(out, "\n[listener %s]\n", listener->name);
        dump_section(config, find_section(config, "listener ", listener->name), bindings, out);
    }
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    for (size_t i = 0; i < config->count; i++) {
        struct config_listener *listener = &config->listeners[i];
        if (listener->shared != NULL && listener->handler->stop != NULL)
            listener->handler->stop(listener->shared);
        free(listener->handler_settings);
        tls_free(listener->tls);
        free(listener->addresses);
        free(listener->address_list);
    }
    free(config->listeners);
    inifile_free(&config->file);
    free(config->path);
    free(config);
}
