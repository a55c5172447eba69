/* The fuzzer without a fuzzer: inputs of random bytes by a seed, in children that may die. With libFuzzer, its entry.
 *
 * main.c IMAGES FIRST COUNT: batches FIRST to FIRST + COUNT - 1, of BATCH sessions each; prints counts, or the batch
 * that failed and fails. IMAGES holds, for each image, its size and its bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "session.h"

#define BATCH 500u
#define MOST_BYTES 400u
#define ALARM_S 300u /* a batch takes a second, and the machine may be busy */

static void read_images(const char *path)
{
	static uint8_t bytes[1 << 20];
	FILE *file = fopen(path, "rb");
	uint32_t size;

	if (file == NULL) {
		perror(path);
		exit(2);
	}
	while (fread(&size, sizeof size, 1, file) == 1 && size <= sizeof bytes && fread(bytes, size, 1, file) == 1)
		session_image(bytes, size);
	fclose(file);
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	read_images(getenv("FUZZ_IMAGES"));
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	session_run(data, size);
	return 0;
}
#else
/* Ref: Steele and others 2014, SplitMix. */
static uint64_t random_word(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static void run_batch(uint64_t batch)
{
	uint64_t state = batch << 32;
	uint8_t data[MOST_BYTES];

	for (uint32_t n = 0; n < BATCH; n++) {
		uint32_t size = 8 + random_word(&state) % (MOST_BYTES - 8);

		for (uint32_t i = 0; i < size; i++)
			data[i] = random_word(&state) >> 56;
		session_run(data, size);
	}
}

int main(int argc, char **argv)
{
	struct session_counts *total =
	    mmap(NULL, sizeof *total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t first, count;
	int failures = 0;

	if (argc != 4 || total == MAP_FAILED) {
		fprintf(stderr, "usage: %s IMAGES FIRST COUNT\n", argv[0]);
		return 2;
	}
	read_images(argv[1]);
	first = strtoull(argv[2], NULL, 0);
	count = strtoull(argv[3], NULL, 0);
	for (uint64_t batch = first; batch < first + count; batch++) {
		pid_t child = fork();
		int status = 0;

		if (child == 0) {
			alarm(ALARM_S);
			session_counts = *total;
			run_batch(batch);
			*total = session_counts;
			exit(0); /* what counts coverage is written at the exit */
		}
		waitpid(child, &status, 0);
		if (status != 0) {
			failures++;
			fprintf(stderr, "batch %llu failed, status %#x\n", (unsigned long long)batch, status);
		}
	}
	printf("%llu %llu %llu %llu %llu %llu %llu %llu\n", (unsigned long long)total->sessions,
	       (unsigned long long)total->frames, (unsigned long long)total->replies,
	       (unsigned long long)total->refused, (unsigned long long)total->images,
	       (unsigned long long)total->commands, (unsigned long long)total->divisions,
	       (unsigned long long)total->together);
	return failures != 0;
}
#endif
