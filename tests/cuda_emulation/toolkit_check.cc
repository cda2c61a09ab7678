/* Compares the stand-ins with the toolkit's headers, where it is installed: compiled once against each
 * (LAM_TOOLKIT_VALUES names the table), and the two tables must be equal. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct toolkit_value {
    const char *name;
    long long value;
};
extern const toolkit_value of_stand_ins[], of_toolkit[];

#ifdef LAM_TOOLKIT_VALUES
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#ifdef LAM_WITH_NCCL
#include <nccl.h>
#endif

#define VALUE(name) {#name, static_cast<long long>(name)},
#define SIZE(type) {"sizeof " #type, sizeof(type)}, {"alignof " #type, alignof(type)},
#define PLACE(type, field) {"place of " #field " in " #type, offsetof(type, field)},
const toolkit_value LAM_TOOLKIT_VALUES[] = {
#include "toolkit_values.inc"
    {nullptr, 0}};
#else
int main(void) {
    int wrong = 0, count = 0;
    for (; of_stand_ins[count].name && of_toolkit[count].name; count++) {
        const toolkit_value &a = of_stand_ins[count], &b = of_toolkit[count];
        if (strcmp(a.name, b.name) == 0 && a.value == b.value) continue;
        printf("%s: %lld, in the toolkit %s %lld\n", a.name, a.value, b.name, b.value);
        wrong++;
    }
    wrong += of_stand_ins[count].name || of_toolkit[count].name;
    printf("%d values and sizes of the toolkit compared, %d differ\n", count, wrong);
    return wrong != 0;
}
#endif
