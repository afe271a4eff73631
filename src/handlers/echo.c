/* echo: sends every byte back (RFC 862), and ends when the peer does. */
#include "handlers/handlers.h"

static enum handler_next echo_input(struct conn *conn, void *state, struct bytes *in, struct output *out)
{
    (void)conn;
    (void)state;
    output_borrow(out, in->data, in->len);
    bytes_skip(in, in->len);
    return HANDLER_MORE;
}

/* A stopping server lets an echo connection live until its peer ends it or the drain is over. */
static enum handler_next echo_drain(struct conn *conn, void *state, struct output *out)
{
    (void)conn;
    (void)state;
    (void)out;
    return HANDLER_MORE;
}

const struct handler echo_handler = {
    .name = "echo",
    .reflects = true,
    .input = echo_input,
    .drain = echo_drain,
};
