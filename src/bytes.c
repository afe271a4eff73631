#include "bytes.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE 65536

struct output_block {
    struct output_block *next;
    size_t used, size;
    char data[];
};

static struct output_block *block_new(size_t size)
{
    struct output_block *block = malloc(sizeof *block + size);
    if (block != NULL)
        *block = (struct output_block){ .size = size };
    return block;
}

int output_init(struct output *out)
{
    memset(out, 0, sizeof *out);
    out->first = out->last = block_new(BLOCK_SIZE);
    return out->first != NULL ? 0 : -1;
}

/* Room for len bytes behind what was copied last; NULL when memory ran out. */
static char *output_room(struct output *out, size_t len)
{
    struct output_block *block = out->last;
    if (block->size - block->used < len) {
        block = block_new(len > BLOCK_SIZE ? len : BLOCK_SIZE);
        if (block == NULL)
            return NULL;
        out->last->next = block;
        out->last = block;
    }
    char *room = block->data + block->used;
    block->used += len;
    return room;
}

/* Appends a range, to the last vector where the two touch. False when all vectors are taken. */
static bool output_append(struct output *out, const char *data, size_t len)
{
    struct iovec *last = out->count > 0 ? &out->vec[out->count - 1] : NULL;
    if (last != NULL && (const char *)last->iov_base + last->iov_len == data)
        last->iov_len += len;
    else if (out->count < OUTPUT_VECTORS)
        /* the cast: sendmsg reads through this pointer, it never writes */
        out->vec[out->count++] = (struct iovec){ .iov_base = (void *)data, .iov_len = len };
    else
        return false;
    out->len += len;
    return true;
}

/* All vectors are taken: copies the whole list into one block, which makes it one vector. */
static bool output_gather(struct output *out)
{
    struct output_block *block = block_new(2 * out->len + BLOCK_SIZE);
    if (block == NULL)
        return false;
    for (int i = 0; i < out->count; i++) {
        memcpy(block->data + block->used, out->vec[i].iov_base, out->vec[i].iov_len);
        block->used += out->vec[i].iov_len;
    }
    out->last->next = block;
    out->last = block;
    out->vec[0] = (struct iovec){ .iov_base = block->data, .iov_len = block->used };
    out->count = 1;
    return true;
}

void output_copy(struct output *out, const void *data, size_t len)
{
    if (len == 0 || out->failed)
        return;
    if (out->count == OUTPUT_VECTORS && !output_gather(out)) {
        out->failed = true;
        return;
    }
    char *room = output_room(out, len);
    if (room == NULL) {
        out->failed = true;
        return;
    }
    memcpy(room, data, len);
    output_append(out, room, len);
}

char *output_reserve(struct output *out, size_t len)
{
    char *room = NULL;
    if (!out->failed && (out->count < OUTPUT_VECTORS || output_gather(out)))
        room = output_room(out, len);
    if (room != NULL)
        out->last->used -= len; /* until it is committed */
    else
        out->failed = true;
    return room;
}

void output_commit(struct output *out, size_t len)
{
    char *room = out->last->data + out->last->used;
    out->last->used += len;
    output_append(out, room, len);
}

void output_borrow(struct output *out, const void *data, size_t len)
{
    if (len == 0 || out->failed)
        return;
    if (!output_append(out, data, len))
        output_copy(out, data, len);
}

void output_reset(struct output *out)
{
    struct output_block *extra = out->first->next;
    while (extra != NULL) {
        struct output_block *next = extra->next;
        free(extra);
        extra = next;
    }
    out->first->next = NULL;
    out->first->used = 0;
    out->last = out->first;
    out->count = 0;
    out->len = 0;
    out->failed = false;
}

void output_free(struct output *out)
{
    if (out->first == NULL)
        return;
    output_reset(out);
    free(out->first);
    out->first = out->last = NULL;
}
