/*
 * replay: a main() for a fuzzer where there is no libFuzzer. Runs it over the files named, else over the corpus in
 * $srcdir/tests/fuzz/CORPUS, and fails when there was none.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    static uint8_t data[1 << 16];
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        perror(path);
        return -1;
    }
    size_t size = fread(data, 1, sizeof data, f);
    fclose(f);
    uint8_t *exact = malloc(size + 1); /* a sanitizer sees who reads further */
    if (exact == NULL)
        return -1;
    for (size_t i = 0; i < size; i++)
        exact[i] = data[i];
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 0;
}

static int replay_corpus(const char *folder)
{
    DIR *dir = opendir(folder);
    int count = 0;
    if (dir == NULL) {
        perror(folder);
        return -1;
    }
    for (const struct dirent *entry; count >= 0 && (entry = readdir(dir)) != NULL;) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.')
            count = replay(path) < 0 ? -1 : count + 1;
    }
    closedir(dir);
    printf("%d inputs\n", count);
    return count > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
    char folder[2048];
    const char *srcdir = getenv("srcdir");
    int result = 0;
    for (int i = 1; i < argc && result == 0; i++)
        result = replay(argv[i]);
    if (argc == 1) {
        snprintf(folder, sizeof folder, "%s/tests/fuzz/" CORPUS, srcdir != NULL ? srcdir : ".");
        result = replay_corpus(folder);
    }
    return result == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
