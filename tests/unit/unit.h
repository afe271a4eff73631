/* unit: what every Check program here has in common. */
#ifndef ECHOD_UNIT_H
#define ECHOD_UNIT_H

#include <check.h>
#include <stdlib.h>

/* The main() of a program with one test case: UNIT_MAIN("bytes", test_copy, test_borrow) */
#define UNIT_MAIN(name, ...)                                                            \
    int main(void)                                                                      \
    {                                                                                   \
        const TTest *const tests[] = { __VA_ARGS__ };                                   \
        TCase *tcase = tcase_create(name);                                              \
        Suite *suite = suite_create(name);                                              \
        for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)                     \
            tcase_add_test(tcase, tests[i]);                                            \
        suite_add_tcase(suite, tcase);                                                  \
        SRunner *runner = srunner_create(suite);                                        \
        srunner_run_all(runner, CK_ENV);                                                \
        int failed = srunner_ntests_failed(runner) + (srunner_ntests_run(runner) == 0); \
        srunner_free(runner);                                                           \
        return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;                               \
    }

#endif
