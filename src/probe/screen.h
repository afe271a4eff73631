/*
 * screen: what is shown to a person. Bytes of a stranger must not move the cursor, change colours, or look like other
 * text: on a terminal they are escaped; a file or a pipe gets them as they are.
 */
#ifndef ECHOPROBE_SCREEN_H
#define ECHOPROBE_SCREEN_H

#include "bytes.h"

#include <stdbool.h>
#include <stdio.h>

/*
 * Writes bytes for a terminal: printable ASCII, newlines (also CR LF), tabs, and UTF-8 but for controls and changes of
 * direction; all else as \xHH.
 */
void screen_write_escaped(FILE *out, struct bytes text);

/* Writes bytes as they are, or escaped when out is a terminal; then the last line is ended if it was not. */
void screen_write(FILE *out, struct bytes text);

/* Shows a line on standard error, cut at the edge, that the next one replaces. Only where that is a terminal. */
void screen_live(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Takes the live line away, before anything else is written. */
void screen_clear(void);

/* Whether screen_live() shows anything. */
bool screen_is_live(void);

#endif
