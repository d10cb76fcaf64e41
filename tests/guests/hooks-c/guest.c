/* A guest of the tests: every hook reads, edits and answers; a call to `throw...` ends where an
 * exception would. The same guest stands beside this one in Rust and in TypeScript. */
#include <assert.h>
#include <stdlib.h>

#include <sipbox.h>

bool exports_sipbox_policy_lifecycle_configure(
    policy_string_t *settings, exports_sipbox_policy_lifecycle_description_t *description,
    policy_string_t *refusal)
{
    (void)refusal;
    policy_string_free(settings);
    return sipbox_configured(description, "guest-hooks-c", "0.1.0", "Every hook in C.");
}

static bool user_is(const sipbox_view *view, const char *user)
{
    return sipbox_equal(sipbox_view_text(view, SIPBOX_URI_USER), sipbox_text_of(user));
}

static void read(const sipbox_view *view)
{
    static const uint32_t ids[] = {
        SIPBOX_METHOD, SIPBOX_REQUEST_URI, SIPBOX_FROM_USER, SIPBOX_FROM_HOST, SIPBOX_FROM_TAG,
        SIPBOX_TO_URI, SIPBOX_CALL_ID, SIPBOX_CONTACT_USER, SIPBOX_CONTACT_HOST,
    };
    char *all = sipbox_format("%s", "");
    for (size_t at = 0; at < sizeof ids / sizeof *ids; at++) {
        char *longer = sipbox_format("%s%.*s|", all, SIPBOX_TEXT(sipbox_view_text(view, ids[at])));
        free(all);
        all = longer;
    }
    char *probe = sipbox_header("X-Probe"), *none = sipbox_header("X-None");
    char *text = sipbox_format(
        "%s%s|%s|%u|%.*s", all, probe == NULL ? "-" : probe, none == NULL ? "-" : none,
        sipbox_view_number(view, SIPBOX_FLAGS, 1), SIPBOX_TEXT(sipbox_view_text(view, SIPBOX_TENANT)));
    sipbox_set_header(sipbox_text_of("X-Read"), sipbox_text_of(text));
    free(all);
    free(probe);
    free(none);
    free(text);
}

void exports_sipbox_policy_route_hook_on_route(void)
{
    bool loose = sipbox_policy_call_route_outcome() == SIPBOX_POLICY_CALL_ROUTE_RESULT_LOOSE;
    char *text = sipbox_format("route %s", loose ? "loose" : "other");
    sipbox_set_header(sipbox_text_of("X-Hooks"), sipbox_text_of(text));
    free(text);
}

void exports_sipbox_policy_request_hook_on_request(sipbox_verdict *verdict)
{
    sipbox_view view = sipbox_view_read();
    if (user_is(&view, "throw"))
        sipbox_fail("lost in %s", "on_request");
    if (user_is(&view, "throw-assert"))
        assert(view.index.len == 0);
    if (user_is(&view, "throw-abort"))
        abort();
    if (user_is(&view, "throw-null"))
        __builtin_trap();
    if (user_is(&view, "throw-refused"))
        sipbox_set_header(sipbox_text_of("Via"), sipbox_text_of("SIP/2.0/UDP nowhere"));
    sipbox_set_var("hooks", sipbox_text_of("1"));
    read(&view);
    sipbox_add_header(sipbox_text_of("X-Hooks"), sipbox_text_of("request"));
    sipbox_arm(
        SIPBOX_POLICY_CALL_HOOKS_BRANCH | SIPBOX_POLICY_CALL_HOOKS_REPLY
        | SIPBOX_POLICY_CALL_HOOKS_FAILURE);
    sipbox_relay_to(
        verdict, sipbox_view_text(&view, SIPBOX_REQUEST_URI),
        sipbox_text_of("sip:192.0.2.9:5070"), true);
    sipbox_view_free(&view);
}

exports_sipbox_policy_branch_hook_branch_verdict_t exports_sipbox_policy_branch_hook_on_branch(
    exports_sipbox_policy_branch_hook_target_t *target)
{
    sipbox_view view = sipbox_view_read();
    if (user_is(&view, "throw-branch"))
        sipbox_fail("lost in %s", "on_branch");
    char *text = sipbox_format("branch %u", target->id);
    sipbox_add_header(sipbox_text_of("X-Hooks"), sipbox_text_of(text));
    free(text);
    sipbox_view_free(&view);
    exports_sipbox_policy_branch_hook_target_free(target);
    return EXPORTS_SIPBOX_POLICY_BRANCH_HOOK_BRANCH_VERDICT_KEEP;
}

exports_sipbox_policy_reply_hook_reply_verdict_t exports_sipbox_policy_reply_hook_on_reply(void)
{
    sipbox_view view = sipbox_view_read();
    if (sipbox_equal(sipbox_view_text(&view, SIPBOX_TO_USER), sipbox_text_of("throw-reply")))
        sipbox_fail("lost in %s", "on_reply");
    char *known = sipbox_var("hooks");
    char *count = sipbox_format("%ld", known == NULL ? 1 : strtol(known, NULL, 10) + 1);
    sipbox_set_var("hooks", sipbox_text_of(count));
    char *text = sipbox_format("reply %u %s", sipbox_view_status(&view), count);
    sipbox_set_header(sipbox_text_of("X-Hooks"), sipbox_text_of(text));
    free(known);
    free(count);
    free(text);
    sipbox_view_free(&view);
    return EXPORTS_SIPBOX_POLICY_REPLY_HOOK_REPLY_VERDICT_FORWARD;
}

void exports_sipbox_policy_failure_hook_on_failure(
    exports_sipbox_policy_failure_hook_failure_t *failure,
    exports_sipbox_policy_failure_hook_verdict_t *verdict)
{
    sipbox_view view = sipbox_view_read();
    if (user_is(&view, "throw-failure"))
        sipbox_fail("lost in %s", "on_failure");
    sipbox_debug(
        "failed with %u %.*s, %zu targets", failure->status, (int)failure->reason.len,
        (const char *)failure->reason.ptr, failure->failed.len);
    char *reason = sipbox_format("Best was %u", failure->status);
    sipbox_reply(verdict, 480, sipbox_text_of(reason));
    free(reason);
    sipbox_view_free(&view);
    exports_sipbox_policy_failure_hook_failure_free(failure);
}
