/* A fuzzer of the job parser: changes FOLDER/seed.json at random and reads it as FOLDER/job.json, COUNT times. Built with
 * AddressSanitizer and UBSan, which end it where something is overrun.   fuzz_job FOLDER COUNT SEED */
#include "agent.h"

static jmp_buf refused;

static void on_refusal(const char *code, const char *message, const char *advice) {
  (void)advice;
  bool told = strcmp(code, "bad_job") == 0 || strcmp(code, "protocol_version") == 0;
  if (!told || !*message) abort();
  longjmp(refused, 1);
}

static size_t some(size_t below) { return below ? (size_t)rand() % below : 0; }
static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Replaces a byte, cuts out some, puts in a piece of JSON, or repeats a part of the document. */
static void change(Text *document) {
  static const char *const pieces[] = {"\"", "{", "}", "[", "]", ",", ":", "\\", "\\u0000", "null", "-1", "1e999",
                                       "0.5e-", "99999999999999999999", "\xc3", "true", "\\ud800", "\"trials\":{}"};
  size_t at = some(document->size), from = some(document->size), skip = 0;
  char byte = (char)rand();
  Text changed = {0};
  add_bytes(&changed, document->data, at);
  switch (some(4)) {
    case 0: add_bytes(&changed, &byte, skip = 1); break;
    case 1: skip = 1 + some(40); break;
    case 2: add(&changed, pieces[some(COUNT(pieces))]); break;
    default: add_bytes(&changed, document->data + from, least(1 + some(60), document->size - from));
  }
  skip = least(skip, document->size - at);
  add_bytes(&changed, document->data + at + skip, document->size - at - skip);
  free(document->data);
  *document = changed;
}

int main(int argc, char **argv) {
  static volatile int accepted, count;
  Text seed = {0};
  const char *folder = argv[1];
  if (argc != 4 || !read_file(textf("%s/seed.json", folder), 1 << 20, &seed)) return 2;
  srand((unsigned)atoi(argv[3]));
  for (int wanted = atoi(argv[2]); count < wanted; count++) {
    Text document = {0};
    add_bytes(&document, seed.data, seed.size);
    for (size_t changes = 1 + some(4); changes; changes--) change(&document);
    int fd = open(textf("%s/job.json", folder), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || !write_all(fd, document.data, document.size)) return 2;
    close(fd);
    free(document.data);
    on_fail = on_refusal;
    if (setjmp(refused) == 0) {
      json_free(load_job(folder));
      accepted++;
    }
  }
  printf("%d documents, %d accepted\n", count, accepted);
  return 0;
}
