/* The stand-ins' values, sizes and places against those of the toolkit's headers, where it is installed. The two cannot be seen
 * by one program: compiled with the stand-ins, this one writes a static_assert for each entry of toolkit_values.inc, which are
 * compiled with the toolkit's headers then (LAM_TOOLKIT_ASSERTS names the file). */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stddef.h>
#ifdef LAM_WITH_NCCL
#include <nccl.h>
#endif

#ifdef LAM_TOOLKIT_ASSERTS
#include LAM_TOOLKIT_ASSERTS
#else
#include <stdio.h>

#define WRITE(expression, value)                                                                             \
    printf("static_assert(%s == %lld, \"%lld in the stand-in\");\n", expression,                             \
           static_cast<long long>(value), static_cast<long long>(value));
#define VALUE(name) WRITE("static_cast<long long>(" #name ")", name)
#define SIZE(type) WRITE("sizeof(" #type ")", sizeof(type)) WRITE("alignof(" #type ")", alignof(type))
#define PLACE(type, field) WRITE("offsetof(" #type ", " #field ")", offsetof(type, field))

int main(void) {
#include "toolkit_values.inc"
    return 0;
}
#endif
