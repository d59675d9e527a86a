// SPDX-License-Identifier: BSD-3-Clause
// Copyright (c) 2026 the espgw authors

// What keys and plaintexts change of what the ciphers do: the bytes that they should, and nothing
// else. Each check passes a burst twice, the second time with other keys and plaintexts, but the
// same addresses, lengths, nonces, AADs and ciphertexts. It compares
// - what is left in registers and on the stack: what is the same tells of no key;
// - the general registers and flags after every single instruction: what is the same neither
//   branches on a secret nor addresses by one.
// So there is no list of secrets that could lack one. Sanitizers add code that wipes nothing: the
// test is not built with them.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <immintrin.h>

#include "esp/gcm.h"
#include "esp_helpers.h"

#define KEYS        4
#define LENGTH_MAX  9216
#define STACK_BYTES 65536
#define STEPS_MAX   100000
#define TRAP_FLAG   UINT64_C(0x100)

typedef void (*burst_function)(
	const struct gcm *gcm, const struct gcm_job *burst, unsigned int count);

// What a call leaves behind. `call` knows the order.
struct leavings {
	uint8_t vectors[32][64];
	uint64_t generals[9]; // that a function need not preserve
	uint8_t stack[STACK_BYTES];
};

// Where the CPU was after an instruction, and a sum of its general registers and flags.
struct step {
	uint64_t address, sum;
};

struct run {
	struct leavings leavings;
	struct step steps[STEPS_MAX];
	unsigned int step_count;
	uint64_t gather; // where an instruction is that addresses by a vector register
};

enum watch { LEAVINGS, STEPS };

static struct gcm gcm;
static struct gcm_key keys[KEYS];
static struct gcm_job jobs[GCM_BURST_MAX];
static uint8_t data[GCM_BURST_MAX][LENGTH_MAX + GCM_BLOCK_SIZE] __attribute__((aligned(64)));
static uint8_t tags[GCM_BURST_MAX][GCM_TAG_SIZE];
static uint8_t stack[STACK_BYTES] __attribute__((aligned(64)));
static struct run runs[2], *current;
static uint64_t state = 1;

// ---- watched calls ----

// Gathers and scatters (VEX and EVEX, second map of opcodes): general registers don't show what
// they address.
static bool is_gather(const uint8_t *code)
{
	uint8_t opcode;
	if (code[0] == 0xc4 && (code[1] & 0x1f) == 2)
		opcode = code[3];
	else if (code[0] == 0x62 && (code[1] & 0x07) == 2)
		opcode = code[4];
	else
		return false;
	return (opcode >= 0x90 && opcode <= 0x93) || (opcode >= 0xa0 && opcode <= 0xa3);
}

// The trap after an instruction; runs on a stack of its own.
static void record_step(int number, siginfo_t *information, void *context)
{
	(void)number, (void)information;
	const greg_t *registers = ((const ucontext_t *)context)->uc_mcontext.gregs;
	struct step step = {.address = (uint64_t)registers[REG_RIP]};
	for (unsigned int i = 0; i <= REG_EFL; i++)
		step.sum = (step.sum ^ (uint64_t)registers[i]) * UINT64_C(0x9e3779b97f4a7c15) ^
			   step.sum >> 29;
	if (is_gather((const uint8_t *)registers[REG_RIP]))
		current->gather = step.address;
	if (current->step_count < STEPS_MAX)
		current->steps[current->step_count] = step;
	current->step_count++;
}

static void take_traps(void)
{
	static uint8_t trap_stack[STACK_BYTES];
	const stack_t alternate = {.ss_sp = trap_stack, .ss_size = sizeof(trap_stack)};
	const struct sigaction action = {
		.sa_sigaction = record_step, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	assert_int_equal(sigaltstack(&alternate, NULL), 0);
	assert_int_equal(sigaction(SIGTRAP, &action, NULL), 0);
}

// Calls on `stack`, with `flags` set, and saves all registers as soon as the call returns.
static __attribute__((noinline)) void call(
	burst_function function, unsigned int count, uint64_t flags, struct leavings *left)
{
	register uint8_t *top __asm__("r12") = stack + STACK_BYTES;
	register burst_function callee __asm__("r13") = function;
	register uint64_t flags_to_set __asm__("r14") = flags;
	register struct leavings *leavings __asm__("r15") = left;
	const struct gcm *first = &gcm;
	const struct gcm_job *second = jobs;
	uint64_t third = count, wide = __builtin_cpu_supports("avx512f") ? 1 : 0;
	__asm__ volatile("lea -128(%%rsp), %%rsp\n" // over the red zone
			 "push %%rbp\n"
			 "mov %%rsp, %%rbx\n"
			 "mov %%r12, %%rsp\n"
			 "mov %%rax, %%r12\n" // `wide`
			 "xor %%eax, %%eax\n"
			 "xor %%ecx, %%ecx\n"
			 "xor %%ebp, %%ebp\n"
			 "xor %%r8d, %%r8d\n"
			 "xor %%r9d, %%r9d\n"
			 "xor %%r10d, %%r10d\n"
			 "xor %%r11d, %%r11d\n"
			 "pushfq\n"
			 "or %%r14, (%%rsp)\n"
			 "popfq\n"
			 "call *%%r13\n"
			 "pushfq\n"
			 "andq $~0x100, (%%rsp)\n"
			 "popfq\n"
			 "mov %%rbx, %%rsp\n"
			 "pop %%rbp\n"
			 "lea 128(%%rsp), %%rsp\n"
			 "mov %%rax, 2048(%%r15)\n"
			 "mov %%rcx, 2056(%%r15)\n"
			 "mov %%rdx, 2064(%%r15)\n"
			 "mov %%rsi, 2072(%%r15)\n"
			 "mov %%rdi, 2080(%%r15)\n"
			 "mov %%r8, 2088(%%r15)\n"
			 "mov %%r9, 2096(%%r15)\n"
			 "mov %%r10, 2104(%%r15)\n"
			 "mov %%r11, 2112(%%r15)\n"
			 "test %%r12, %%r12\n"
			 "jz 1f\n"
			 ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,"
			 "25,26,27,28,29,30,31\n"
			 "vmovdqu64 %%zmm\\i, 64*\\i(%%r15)\n"
			 ".endr\n"
			 "jmp 2f\n"
			 "1:\n"
			 ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
			 "vmovdqu %%ymm\\i, 64*\\i(%%r15)\n"
			 ".endr\n"
			 "2:\n"
			 "vzeroupper\n"
			 : "+r"(top), "+r"(callee), "+r"(flags_to_set), "+r"(leavings), "+a"(wide),
			 "+D"(first), "+S"(second), "+d"(third)
			 :
			 : "rbx", "rcx", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3",
			 "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
			 "xmm13", "xmm14", "xmm15", "memory", "cc");
}
_Static_assert(offsetof(struct leavings, generals) == 2048, "as in call");

static void pass(burst_function function, unsigned int count, enum watch watch, struct run *run)
{
	current = run;
	run->step_count = 0;
	run->gather = 0;
	memset(stack, 0xa5, sizeof(stack));
	// Into the same place each time: its address is in a register.
	static struct leavings left;
	call(function, count, watch == STEPS ? TRAP_FLAG : 0, &left);
	memcpy(left.stack, stack, sizeof(stack));
	run->leavings = left;
}

// ---- bursts ----

// New keys, and the contents that they make of the same ciphertext or out of it: what is left of a
// ciphertext, which everybody may see, is no secret.
static void draw_secrets(unsigned int count, bool encrypt)
{
	for (unsigned int i = 0; i < KEYS; i++) {
		uint8_t bytes[GCM_KEY_SIZE];
		test_fill(bytes, sizeof(bytes), test_random(&state));
		gcm_key_expand(gcm.manager, &keys[i], bytes);
	}
	for (unsigned int i = 0; i < count; i++)
		test_fill(data[i], (uint32_t)jobs[i].length, i);
	const struct gcm reference = {.manager = gcm.manager};
	if (encrypt)
		gcm_decrypt_burst(&reference, jobs, count);
}

// `key_count`: how many keys the jobs take in turn.
static void set_job(unsigned int i, uint64_t length, unsigned int key_count)
{
	jobs[i] = (struct gcm_job){
		.key = &keys[i % key_count],
		.data = data[i],
		.length = length,
		.aad_length = i % 3 == 0 ? 12 : 8,
		.tag = tags[i],
	};
	test_fill(jobs[i].nonce, GCM_SLOT_SIZE, i);
	test_fill(jobs[i].aad, GCM_SLOT_SIZE, i);
}

static void pass_twice(burst_function function, unsigned int count, enum watch watch)
{
	for (unsigned int i = 0; i < 2; i++) {
		draw_secrets(count, function == gcm_encrypt_burst);
		pass(function, count, watch, &runs[i]);
	}
}

// How many of the first run's leavings differ from the second's, in registers and words of the
// stack.
static unsigned int count_kept(void)
{
	const struct leavings *a = &runs[0].leavings, *b = &runs[1].leavings;
	unsigned int kept = 0;
	for (unsigned int i = 0; i < RTE_DIM(a->vectors); i++)
		kept += memcmp(a->vectors[i], b->vectors[i], sizeof(a->vectors[i])) != 0;
	for (unsigned int i = 0; i < RTE_DIM(a->generals); i++)
		kept += a->generals[i] != b->generals[i];
	for (unsigned int i = 0; i < STACK_BYTES; i += 8)
		kept += memcmp(a->stack + i, b->stack + i, 8) != 0;
	return kept;
}

static void check_leavings(burst_function function, unsigned int count)
{
	pass_twice(function, count, LEAVINGS);
	unsigned int kept = count_kept();
	if (kept != 0)
		fail_msg("%u registers and words of the stack keep secrets after %u messages, the "
			 "first of %lu bytes",
			kept, count, jobs[0].length);
}

// Whether the two runs differ in a step, or address by vectors: then *address is where.
static bool steps_tell(burst_function function, unsigned int count, uint64_t *address)
{
	pass_twice(function, count, STEPS);
	assert_in_range(runs[0].step_count, 100, STEPS_MAX);
	*address = runs[0].gather;
	for (unsigned int i = 0; i < runs[0].step_count && *address == 0; i++)
		if (memcmp(&runs[0].steps[i], &runs[1].steps[i], sizeof(struct step)) != 0)
			*address = runs[0].steps[i].address;
	return *address != 0 || runs[0].step_count != runs[1].step_count;
}

static void check_steps(burst_function function, unsigned int count)
{
	uint64_t address;
	if (steps_tell(function, count, &address))
		fail_msg("a register or flag depends on secrets before 0x%lx (%u messages, the "
			 "first of %lu bytes)",
			address, count, jobs[0].length);
}

// ---- what is left ----

static void test_leavings_of_each_length(void **unused)
{
	(void)unused;
	for (uint64_t length = 0; length <= LENGTH_MAX; length += length < 1600 ? 1 : 423) {
		for (unsigned int i = 0; i < 4; i++)
			set_job(i, length, length % 2 == 0 ? 1 : KEYS);
		check_leavings(gcm_encrypt_burst, 4);
		check_leavings(gcm_decrypt_burst, 4);
	}
}

static void test_leavings_of_mixtures(void **unused)
{
	(void)unused;
	for (unsigned int round = 0; round < 256; round++) {
		unsigned int count = 1 + round % GCM_BURST_MAX;
		for (unsigned int i = 0; i < count; i++)
			set_job(i, test_random(&state) % (i % 2 == 0 ? 100 : 1600),
				1 + round % KEYS);
		check_leavings(round % 3 == 0 ? gcm_decrypt_burst : gcm_encrypt_burst, count);
	}
}

static uint8_t key_bytes[GCM_KEY_SIZE];

static void expand_key(const struct gcm *own, const struct gcm_job *burst, unsigned int count)
{
	(void)burst, (void)count;
	gcm_key_expand(own->manager, &keys[0], key_bytes);
}

static void test_leavings_of_expansion(void **unused)
{
	(void)unused;
	for (unsigned int i = 0; i < 2; i++) {
		test_fill(key_bytes, sizeof(key_bytes), i);
		pass(expand_key, 0, LEAVINGS, &runs[i]);
	}
	assert_int_equal(count_kept(), 0);
}

static void no_wipe(void)
{
}

static void test_wipe_is_needed(void **unused)
{
	(void)unused;
	const struct gcm_variant *variant = gcm.variant;
	if (variant == NULL)
		return;
	struct gcm_variant careless = *variant;
	careless.wipe = no_wipe;
	gcm.variant = &careless;
	unsigned int count = gcm.alone ? 1 : variant->together;
	for (unsigned int i = 0; i < count; i++)
		set_job(i, gcm.alone ? 1000 : 68, KEYS);
	pass_twice(gcm_encrypt_burst, count, LEAVINGS);
	unsigned int kept = count_kept();
	gcm.variant = variant;
	assert_in_range(kept, 8, STACK_BYTES);
}

// ---- each step ----

// `blocks`: of the longest of the messages that go together; the last one is partial. Once alike,
// once with different keys and lengths.
static void check_steps_of(unsigned int blocks)
{
	unsigned int count = gcm.variant != NULL ? gcm.variant->together : 1;
	uint64_t length = blocks == 0 ? 0 : blocks * GCM_BLOCK_SIZE - 5;
	for (unsigned int i = 0; i < count; i++)
		set_job(i, length, 1);
	check_steps(gcm_encrypt_burst, count);
	check_steps(gcm_decrypt_burst, count);
	for (unsigned int i = 0; i < count; i++) {
		uint64_t less = i * GCM_BLOCK_SIZE;
		set_job(i, length > less ? length - less : 0, KEYS);
	}
	check_steps(gcm_encrypt_burst, count);
	check_steps(gcm_decrypt_burst, count);
}

// Each function that a variant is compiled to, and each way through it.
static void test_steps(void **unused)
{
	(void)unused;
	static const unsigned int long_ones[] = {
		GCM_OWN_POWER_BLOCKS, GCM_OWN_POWER_BLOCKS + 1, GCM_SHORT_BLOCKS};
	for (unsigned int blocks = 0; blocks < 13; blocks++)
		check_steps_of(blocks);
	for (unsigned int i = 0; i < RTE_DIM(long_ones); i++)
		if (gcm.variant == NULL || long_ones[i] <= gcm.variant->longest)
			check_steps_of(long_ones[i]);
}

// A single message of each number of rows up to three steps and the last.
static void test_steps_of_single_messages(void **unused)
{
	(void)unused;
	enum { ROW = 4 * GCM_BLOCK_SIZE };
	for (unsigned int rows = 1; rows <= 27; rows++) {
		set_job(0, rows * ROW - 2 * GCM_BLOCK_SIZE - rows % 31, KEYS);
		check_steps(gcm_encrypt_burst, 1);
		check_steps(gcm_decrypt_burst, 1);
	}
}

static void test_leavings_of_single_messages(void **unused)
{
	(void)unused;
	for (uint64_t length = 0; length <= LENGTH_MAX; length += length < 1600 ? 3 : 423) {
		set_job(0, length, 1);
		check_leavings(gcm_encrypt_burst, 1);
		check_leavings(gcm_decrypt_burst, 1);
	}
}

static volatile uint32_t table[256], looked_up;

static void branch_on_key(const struct gcm_job *const *messages, unsigned int blocks)
{
	for (unsigned int i = messages[0]->key->schedule.expanded_keys[0]; i > 0; i--)
		looked_up = blocks;
}

static void address_by_key(const struct gcm_job *const *messages, unsigned int blocks)
{
	looked_up = table[messages[0]->key->schedule.expanded_keys[0]] + blocks;
}

__attribute__((target("avx2"))) static void gather_by_key(
	const struct gcm_job *const *messages, unsigned int blocks)
{
	__m128i key = _mm_loadu_si128((const void *)messages[0]->key->schedule.expanded_keys);
	__m128i index = _mm_and_si128(key, _mm_set1_epi32(0xff));
	__m128i found = _mm_i32gather_epi32((const int *)(uintptr_t)table, index, 4);
	_mm_storeu_si128((__m128i *)messages[0]->tag, found);
	looked_up = blocks;
}

static void test_steps_tell(void **unused)
{
	(void)unused;
	static const gcm_together careless[] = {branch_on_key, address_by_key, gather_by_key};
	const struct gcm_variant *variant = gcm.variant;
	if (variant == NULL)
		return;
	for (unsigned int i = 0; i < RTE_DIM(careless); i++) {
		struct gcm_variant changed = *variant;
		changed.encrypt = careless[i];
		gcm.variant = &changed;
		for (unsigned int message = 0; message < variant->together; message++)
			set_job(message, 68, 1);
		uint64_t address;
		bool tell = steps_tell(gcm_encrypt_burst, variant->together, &address);
		gcm.variant = variant;
		assert_true(tell);
	}
}

// `variant`: NULL for ipsec-mb.
static int run(const char *name, const struct gcm_variant *variant, bool alone)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leavings_of_each_length),
		cmocka_unit_test(test_leavings_of_single_messages),
		cmocka_unit_test(test_leavings_of_mixtures),
		cmocka_unit_test(test_leavings_of_expansion),
		cmocka_unit_test(test_wipe_is_needed),
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_steps_of_single_messages),
		cmocka_unit_test(test_steps_tell),
	};
	gcm = test_gcm(gcm.manager, variant, alone);
	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	IMB_MGR *manager = alloc_mb_mgr(0);
	init_mb_mgr_auto(manager, NULL);
	gcm.manager = manager;
	take_traps();
	int failed = test_each_cipher(run);
	free_mb_mgr(manager);
	return failed;
}
