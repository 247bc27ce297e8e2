/* What a build without CUDA says: these tests link kernels/gpu_none.c, whatever GPU is. */
#include "infer/backend.h"
#include "kernels/gpu_ops.h"
#include "tests/support.h"

#include <errno.h>

static void gpu_none_answers_enodev(void **state)
{
    (void)state;
    struct gpu_info info;
    struct gpu_stream *s = NULL;
    void *p = NULL;
    assert_int_equal(gpu_device_info(&info), -ENODEV);
    assert_int_equal(gpu_stream_new(&s), -ENODEV);
    assert_int_equal(gpu_alloc(&p, 1), -ENODEV);
    assert_int_equal(gpu_add(s, p, p, 1), -ENODEV);
    assert_null(s);
    assert_null(p);
    assert_non_null(strstr(gpu_last_error(), "no GPU support"));
    assert_false(gpu_takes_type(0)); /* GGML type 0 is F32, which every device reads */
}

static void backend_gpu_without_cuda_is_enodev(void **state)
{
    (void)state;
    struct backend *b = NULL;
    struct err e = {0};
    assert_int_equal(backend_open(&b, "gpu", NULL, &e), -ENODEV);
    assert_null(b);
    assert_ptr_equal(strstr(e.msg, "no GPU: "), e.msg);
    assert_int_equal(backend_open(&b, "npu", NULL, &e), -EINVAL);
    assert_null(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpu_none_answers_enodev),
        cmocka_unit_test(backend_gpu_without_cuda_is_enodev),
    };
    return cmocka_run_group_tests_name("infer_no_gpu", tests, NULL, NULL);
}
