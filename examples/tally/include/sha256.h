/* sha256: the digest of bytes, after FIPS 180-4. */
#ifndef TALLY_SHA256_H
#define TALLY_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_HEX_BYTES 65

struct Sha256 {
    uint32_t state[8];
    unsigned char block[64];
    uint64_t length; /* bytes so far */
};

void sha256_start(struct Sha256 *hash);
void sha256_add(struct Sha256 *hash, const void *bytes, size_t length);

/* The digest in hexadecimal. The hash can't be used further. */
void sha256_finish(struct Sha256 *hash, char hex[SHA256_HEX_BYTES]);

#endif
