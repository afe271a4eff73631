/* text: small questions about strings that several files ask. Pure. */
#ifndef ECHOD_TEXT_H
#define ECHOD_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True when the bytes are well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF). */
bool text_is_utf8(const char *data, size_t len);

/* True when the bytes hold a control character: C0, DEL, or C1 as UTF-8 writes it. */
bool text_has_control(const char *data, size_t len);

#define TEXT_NUMBER 20 /* bytes that text_number() needs */

/* Writes a number in decimal, without a NUL behind it. Returns its length. */
size_t text_number(char buf[TEXT_NUMBER], uint64_t number);

/* How many single-character edits (insert, delete, replace) lead from a to b; 99 when either is over 63 bytes. */
unsigned text_distance(const char *a, const char *b);

#endif
