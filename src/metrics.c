#include "metrics.h"

#include <inttypes.h>
#include <string.h>

#define MICROSECONDS INT64_C(1000) /* in nanoseconds */
#define MILLISECONDS INT64_C(1000000)
#define SECONDS      INT64_C(1000000000)

/* From one answer on loopback to a connection that lives for hours. */
static const int64_t bounds[HISTOGRAM_BOUNDS] = {
    10 * MICROSECONDS,  25 * MICROSECONDS,   50 * MICROSECONDS,   100 * MICROSECONDS, 250 * MICROSECONDS,
    500 * MICROSECONDS, 1 * MILLISECONDS,    2500 * MICROSECONDS, 5 * MILLISECONDS,   10 * MILLISECONDS,
    25 * MILLISECONDS,  50 * MILLISECONDS,   100 * MILLISECONDS,  250 * MILLISECONDS, 500 * MILLISECONDS,
    1 * SECONDS,        2500 * MILLISECONDS, 5 * SECONDS,         10 * SECONDS,       60 * SECONDS,
    600 * SECONDS,      3600 * SECONDS,
};

void histogram_add(struct histogram *histogram, int64_t nanoseconds, uint64_t times)
{
    size_t i = 0;
    if (nanoseconds < 0)
        nanoseconds = 0;
    while (i < HISTOGRAM_BOUNDS && nanoseconds > bounds[i])
        i++;
    counter_add(&histogram->buckets[i], times);
    counter_add(&histogram->sum, (uint64_t)nanoseconds * times);
}

void histogram_sum(struct histogram *sum, const struct histogram *other)
{
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
        counter_add(&sum->buckets[i], counter_read(&other->buckets[i]));
    counter_add(&sum->sum, counter_read(&other->sum));
}

/* A status takes the first free place when it has none. */
void requests_add(struct requests *requests, unsigned status, uint64_t n)
{
    size_t i = 0;
    unsigned taken;
    while ((taken = atomic_load_explicit(&requests->answered[i].status, memory_order_relaxed)) != status &&
           taken != 0 && i < REQUEST_STATUSES - 1)
        i++;
    counter_add(&requests->answered[i].count, n);
    if (taken == 0)
        atomic_store_explicit(&requests->answered[i].status, status, memory_order_relaxed);
}

void requests_sum(struct requests *sum, const struct requests *other)
{
    for (size_t i = 0; i < REQUEST_STATUSES; i++) {
        unsigned status = atomic_load_explicit(&other->answered[i].status, memory_order_relaxed);
        if (status != 0)
            requests_add(sum, status, counter_read(&other->answered[i].count));
    }
    histogram_sum(&sum->duration, &other->duration);
}

void metrics_family(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_label(FILE *out, const char *name, const char *value)
{
    fprintf(out, "%s=\"", name);
    for (; *value != '\0'; value++) {
        if (*value == '\n')
            fputs("\\n", out);
        else
            fprintf(out, *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
    }
    fputc('"', out);
}

/* The name with its suffix, the labels, and one more label unless its name is NULL. */
static void put_series(FILE *out, const char *name, const char *suffix, const struct label *labels, struct label last)
{
    const char *separator = "{";
    fprintf(out, "%s%s", name, suffix);
    for (; labels->name != NULL; labels++) {
        fputs(separator, out);
        put_label(out, labels->name, labels->value);
        separator = ",";
    }
    if (last.name != NULL) {
        fputs(separator, out);
        put_label(out, last.name, last.value);
        separator = ",";
    }
    fputs(*separator == ',' ? "} " : " ", out);
}

/* Without the zeros that end the fraction. */
static void format_seconds(char *buf, size_t size, int64_t nanoseconds)
{
    int n = snprintf(buf, size, "%" PRId64 ".%09" PRId64, nanoseconds / SECONDS, nanoseconds % SECONDS);
    while (n > 0 && buf[n - 1] == '0')
        buf[--n] = '\0';
    if (n > 0 && buf[n - 1] == '.')
        buf[--n] = '\0';
}

void metrics_value(FILE *out, const char *name, const struct label *labels, uint64_t value)
{
    put_series(out, name, "", labels, (struct label){ 0 });
    fprintf(out, "%" PRIu64 "\n", value);
}

void metrics_seconds(FILE *out, const char *name, const struct label *labels, int64_t nanoseconds)
{
    char text[40];
    format_seconds(text, sizeof text, nanoseconds);
    put_series(out, name, "", labels, (struct label){ 0 });
    fprintf(out, "%s\n", text);
}

void metrics_histogram(FILE *out, const char *name, const struct label *labels, const struct histogram *histogram)
{
    char text[40];
    uint64_t count = 0;
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++) {
        snprintf(text, sizeof text, "+Inf");
        if (i < HISTOGRAM_BOUNDS)
            format_seconds(text, sizeof text, bounds[i]);
        count += counter_read(&histogram->buckets[i]);
        put_series(out, name, "_bucket", labels, (struct label){ "le", text });
        fprintf(out, "%" PRIu64 "\n", count);
    }
    format_seconds(text, sizeof text, (int64_t)counter_read(&histogram->sum));
    put_series(out, name, "_sum", labels, (struct label){ 0 });
    fprintf(out, "%s\n", text);
    put_series(out, name, "_count", labels, (struct label){ 0 });
    fprintf(out, "%" PRIu64 "\n", count);
}
