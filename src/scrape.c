#include "scrape.h"

#include "access.h"
#include "log.h"

#include <string.h>

/* What one endpoint has counted in all threads. */
struct sum {
    struct listener_metrics metrics;
    uint64_t open;
    struct label labels[4]; /* listener, handler, room for one more, end */
};

#define LABEL_MORE 2

static void add(counter *sum, const counter *other)
{
    counter_add(sum, counter_read(other));
}

static void sum_endpoint(struct sum *sum, const struct endpoint *endpoint)
{
    *sum = (struct sum){ .labels = { { "listener", endpoint->name }, { "handler", endpoint->handler } } };
    sum->open = atomic_load(&endpoint->gate.open);
    for (size_t i = 0; i < endpoint->workers; i++) {
        const struct listener_metrics *other = endpoint->metrics[i];
        for (size_t r = 0; r < CONN_REASONS; r++)
            add(&sum->metrics.conn.closed[r], &other->conn.closed[r]);
        for (size_t r = 0; r < REFUSALS; r++)
            add(&sum->metrics.refused[r], &other->refused[r]);
        add(&sum->metrics.conn.opened, &other->conn.opened);
        add(&sum->metrics.conn.silent, &other->conn.silent);
        add(&sum->metrics.conn.bytes_in, &other->conn.bytes_in);
        add(&sum->metrics.conn.bytes_out, &other->conn.bytes_out);
        histogram_sum(&sum->metrics.conn.duration, &other->conn.duration);
        requests_sum(&sum->metrics.conn.requests, &other->conn.requests);
    }
}

/* --- Families with the labels listener and handler: each writes what one endpoint has --------------------------- */

static void write_open(FILE *out, const char *name, struct sum *sum)
{
    metrics_value(out, name, sum->labels, sum->open);
}

static void write_accepted(FILE *out, const char *name, struct sum *sum)
{
    metrics_value(out, name, sum->labels, counter_read(&sum->metrics.conn.opened));
}

/* A value for each word. */
static void write_words(FILE *out, const char *name, struct sum *sum, const counter *counts, const char *const *words,
                        size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sum->labels[LABEL_MORE] = (struct label){ "reason", words[i] };
        metrics_value(out, name, sum->labels, counter_read(&counts[i]));
    }
    sum->labels[LABEL_MORE] = (struct label){ 0 };
}

static void write_refused(FILE *out, const char *name, struct sum *sum)
{
    write_words(out, name, sum, sum->metrics.refused, refusal_words, REFUSALS);
}

static void write_closed(FILE *out, const char *name, struct sum *sum)
{
    write_words(out, name, sum, sum->metrics.conn.closed, conn_reason_words, CONN_REASONS);
}

static void write_silent(FILE *out, const char *name, struct sum *sum)
{
    metrics_value(out, name, sum->labels, counter_read(&sum->metrics.conn.silent));
}

static void write_received(FILE *out, const char *name, struct sum *sum)
{
    metrics_value(out, name, sum->labels, counter_read(&sum->metrics.conn.bytes_in));
}

static void write_sent(FILE *out, const char *name, struct sum *sum)
{
    metrics_value(out, name, sum->labels, counter_read(&sum->metrics.conn.bytes_out));
}

static void write_duration(FILE *out, const char *name, struct sum *sum)
{
    metrics_histogram(out, name, sum->labels, &sum->metrics.conn.duration);
}

static void write_requests(FILE *out, const char *name, struct sum *sum)
{
    const struct requests *requests = &sum->metrics.conn.requests;
    for (size_t i = 0; i < REQUEST_STATUSES && requests->answered[i].status != 0; i++) {
        char status[12];
        snprintf(status, sizeof status, "%u", requests->answered[i].status);
        sum->labels[LABEL_MORE] = (struct label){ "status", status };
        metrics_value(out, name, sum->labels, counter_read(&requests->answered[i].count));
    }
    sum->labels[LABEL_MORE] = (struct label){ 0 };
}

/* A listener that answers no requests has no durations of them. */
static void write_request_duration(FILE *out, const char *name, struct sum *sum)
{
    if (sum->metrics.conn.requests.answered[0].status != 0)
        metrics_histogram(out, name, sum->labels, &sum->metrics.conn.requests.duration);
}

static const struct {
    const char *name, *type, *help;
    void (*write)(FILE *out, const char *name, struct sum *sum);
} families[] = {
    { "echod_connections_open", "gauge", "Connections that are open.", write_open },
    { "echod_connections_accepted_total", "counter", "Connections that were accepted and admitted.", write_accepted },
    { "echod_connections_refused_total", "counter", "Connections that were closed at once, over a limit.",
      write_refused },
    { "echod_connections_closed_total", "counter", "Connections that have ended.", write_closed },
    { "echod_connections_silent_total", "counter", "Connections that have ended without a byte from the peer.",
      write_silent },
    { "echod_bytes_received_total", "counter", "Bytes received.", write_received },
    { "echod_bytes_sent_total", "counter", "Bytes sent, or queued to be.", write_sent },
    { "echod_connection_duration_seconds", "histogram", "From accept to the end of a connection.", write_duration },
    { "echod_requests_total", "counter", "Requests answered.", write_requests },
    { "echod_request_duration_seconds", "histogram", "From the first byte of a request to its answer.",
      write_request_duration },
};

/* True when a generation that comes before `end` in the list has it, or this one does at a place before. */
static bool is_written(const struct scrape *scrape, const struct generation *end, size_t index)
{
    for (const struct generation *g = scrape->generations; g != end; g = g->before)
        for (size_t i = 0; i < g->count; i++)
            if (g->endpoints[i] == end->endpoints[index])
                return true;
    return false;
}

static void write_endpoints(const struct scrape *scrape, size_t family, FILE *out)
{
    for (const struct generation *g = scrape->generations; g != NULL; g = g->before)
        for (size_t i = 0; i < g->count; i++) {
            struct sum sum;
            if (is_written(scrape, g, i))
                continue;
            sum_endpoint(&sum, g->endpoints[i]);
            families[family].write(out, families[family].name, &sum);
        }
}

/* --- What belongs to no listener -------------------------------------------------------------------------------- */

static void write_lag(const struct scrape *scrape, FILE *out)
{
    static const char name[] = "echod_event_loop_lag_seconds";
    metrics_family(out, name, "histogram", "How late an event loop comes round to what is due.");
    for (size_t i = 0; i < scrape->worker_count; i++) {
        char thread[24];
        snprintf(thread, sizeof thread, "%zu", i);
        metrics_histogram(out, name, (const struct label[]){ { "thread", thread }, { 0 } },
                          &worker_metrics(scrape->workers[i])->lag);
    }
}

static void write_lost(const struct scrape *scrape, FILE *out)
{
    static const char name[] = "echod_log_lines_lost_total";
    uint64_t lost = 0;
    for (size_t i = 0; i < scrape->worker_count; i++)
        lost += access_lost(worker_access(scrape->workers[i]));
    metrics_family(out, name, "counter", "Lines of a log that found no room.");
    metrics_value(out, name, (const struct label[]){ { "log", "access" }, { 0 } }, lost);
    metrics_value(out, name, (const struct label[]){ { "log", "stderr" }, { 0 } }, log_lost());
}

static void write_process(const struct scrape *scrape, FILE *out)
{
    static const struct label none[] = { { 0 } };
    metrics_family(out, "echod_build_info", "gauge", "1, with the version as a label.");
    metrics_value(out, "echod_build_info", (const struct label[]){ { "version", PACKAGE_VERSION }, { 0 } }, 1);
    metrics_family(out, "echod_config_timestamp_seconds", "gauge", "When the configuration in force was loaded.");
    metrics_seconds(out, "echod_config_timestamp_seconds", none, scrape->loaded);
    metrics_family(out, "echod_reloads_total", "counter", "Reloads of the configuration.");
    metrics_value(out, "echod_reloads_total", (const struct label[]){ { "result", "success" }, { 0 } },
                  scrape->reloads);
    metrics_value(out, "echod_reloads_total", (const struct label[]){ { "result", "failure" }, { 0 } },
                  scrape->reloads_failed);
}

static void write_paused(const struct scrape *scrape, FILE *out)
{
    static const char name[] = "echod_accept_paused";
    metrics_family(out, name, "gauge", "Listening sockets of threads that wait for descriptors or memory.");
    metrics_value(out, name, (const struct label[]){ { 0 } }, (uint64_t)atomic_load(&scrape->admission->starved));
}

static void write_certificates(const struct scrape *scrape, FILE *out)
{
    static const char name[] = "echod_certificate_expiry_timestamp_seconds";
    size_t count;
    const struct config_listener *listeners = config_listeners(scrape->generations->config, &count);
    metrics_family(out, name, "gauge", "When the first of a listener's certificates expires.");
    for (size_t i = 0; i < count; i++)
        if (listeners[i].tls != NULL)
            metrics_value(out, name, (const struct label[]){ { "listener", listeners[i].name }, { 0 } },
                          (uint64_t)tls_expiry(listeners[i].tls));
}

void scrape_write(const struct scrape *scrape, FILE *out)
{
    write_process(scrape, out);
    write_lag(scrape, out);
    write_lost(scrape, out);
    write_paused(scrape, out);
    write_certificates(scrape, out);
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        metrics_family(out, families[i].name, families[i].type, families[i].help);
        write_endpoints(scrape, i, out);
    }
}
