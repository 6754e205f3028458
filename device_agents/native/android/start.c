/* The entry point of an Android executable: hands the kernel's arguments to the C library, which calls main. */
#include <stddef.h>

/* Three lists of functions, and room for what later versions may have appended: all empty. */
typedef struct {
  void (**preinit)(void), (**init)(void), (**fini)(void);
  size_t more[13];
} Structors;
extern void __libc_init(void *arguments, void (*on_exit)(void), int (*main)(int, char **, char **), const Structors *structors);
extern int main(int, char **, char **);
static void (*none[2])(void);
static const Structors STRUCTORS = {none, none, none, {0}};

__attribute__((used)) void socbench_start(void *arguments) { __libc_init(arguments, NULL, main, &STRUCTORS); }

#if defined(__aarch64__)
__asm__(".globl _start\n_start:\n  mov x0, sp\n  b socbench_start\n");
#elif defined(__x86_64__)
__asm__(".globl _start\n_start:\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call socbench_start\n");
#elif defined(__arm__)
__asm__(".globl _start\n_start:\n  mov r0, sp\n  bic sp, sp, #7\n  b socbench_start\n");
#endif
