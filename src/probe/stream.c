#include "probe/stream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PERIOD   4093   /* a prime */
#define VIEW_MAX 262144 /* more at once is of no use */

/* Makes room for a period, and fills what lies behind it once it is there. */
static int stream_init(struct stream *s, size_t period, size_t request, size_t count)
{
    size_t view = request > VIEW_MAX / count ? VIEW_MAX : request * count;
    *s = (struct stream){ .data = malloc(period + view), .period = period, .view = view, .request = request };
    return s->data != NULL ? 0 : -1;
}

static void stream_unroll(struct stream *s)
{
    for (size_t i = s->period; i < s->period + s->view; i++)
        s->data[i] = s->data[i - s->period];
}

int stream_random(struct stream *s, size_t size, size_t count)
{
    if (stream_init(s, PERIOD, size, count) < 0)
        return -1;
    for (size_t at = 0; at < PERIOD; at += 256) { /* the most that comes in one piece for sure */
        size_t len = PERIOD - at < 256 ? PERIOD - at : 256;
        if (getrandom(s->data + at, len, 0) != (ssize_t)len)
            return -1;
    }
    stream_unroll(s);
    return 0;
}

int stream_repeat(struct stream *s, struct bytes text, size_t count)
{
    if (stream_init(s, text.len, text.len, count) < 0)
        return -1;
    memcpy(s->data, text.data, text.len);
    stream_unroll(s);
    return 0;
}

void stream_free(struct stream *s)
{
    free(s->data);
    s->data = NULL;
}
