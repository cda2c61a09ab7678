#include "base/cli_text.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void lam_cli_print_overview(FILE *to, const lam_command *const *commands) {
    fprintf(
        to,
        "lamella %s: self-supervised representation learning on microscope images\n\nUsage: lamella COMMAND ...\n\n",
        lam_version);
    for (const lam_command *const *c = commands; *c; c++)
        fprintf(to, "  %-13s %s\n", (*c)->name, (*c)->summary);
    fprintf(to, "\nlamella COMMAND --help shows every option with its default, and an example.\n"
                "lamella --version, --man (roff), --completion (bash)\n");
}

static void print_options(const lam_option *options) {
    for (const lam_option *o = options; o && o->name; o++) {
        char head[160];
        snprintf(head, sizeof head, "--%s%s%s%s", o->name, o->kind == LAM_OPTION_FLAG ? "" : " ",
                 o->kind == LAM_OPTION_FLAG ? "" : o->value_name, o->kind == LAM_OPTION_LIST ? " ..." : "");
        printf(strlen(head) > 30 ? "  %s\n  %-30s %s" : "  %-30s%s %s", head, "", o->help);
        if (o->minimum < o->maximum || o->minimum > o->maximum) {
            char low[32], high[32];
            printf("; %s to %s", lam_number_text(low, o->minimum), lam_number_text(high, o->maximum));
        }
        if (o->required) printf(" (required)");
        if (o->default_value) printf(" [%s]", *o->default_value ? o->default_value : "none");
        printf("\n");
    }
}

void lam_cli_print_help(const lam_command *command) {
    printf("lamella %s: %s\n\nUsage: lamella %s%s%s [options]\n\nOptions:\n", command->name, command->summary,
           command->name, *command->positionals ? " " : "", command->positionals);
    print_options(command->options);
    print_options(lam_common_options);
    printf("\nExample:\n");
    for (const char *p = command->example; *p;) {
        size_t n = strcspn(p, "\n");
        printf("  %.*s\n", (int)n, p);
        p += n + (p[n] == '\n');
    }
}

/* roff reads a leading dot or quote as a command and a backslash as an escape. */
static void print_roff(const char *text) {
    bool line_start = true;
    for (; *text; text++) {
        if (line_start && (*text == '.' || *text == '\'')) fputs("\\&", stdout);
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
        line_start = *text == '\n';
    }
}

static void print_roff_options(const lam_option *options) {
    for (const lam_option *o = options; o && o->name; o++) {
        printf(".TP\n\\fB\\-\\-");
        print_roff(o->name);
        printf("\\fR");
        if (o->kind != LAM_OPTION_FLAG) {
            printf(" \\fI");
            print_roff(o->value_name);
            printf("\\fR");
        }
        printf("\n");
        print_roff(o->help);
        if (o->default_value) {
            printf(" (default: ");
            print_roff(o->default_value);
            printf(")");
        }
        printf("\n");
    }
}

void lam_cli_print_man(const lam_command *const *commands) {
    printf(
        ".TH LAMELLA 1 \"\" \"lamella %s\"\n.SH NAME\nlamella \\- self\\-supervised representation learning on microscope images\n"
        ".SH SYNOPSIS\n.B lamella\n.I COMMAND\n[options]\n.SH COMMANDS\n",
        lam_version);
    for (const lam_command *const *c = commands; *c; c++) {
        printf(".SS lamella %s ", (*c)->name);
        print_roff((*c)->positionals);
        printf("\n");
        print_roff((*c)->summary);
        printf("\n");
        print_roff_options((*c)->options);
        printf(".PP\nExample:\n.nf\n");
        print_roff((*c)->example);
        printf("\n.fi\n");
    }
    printf(".SH COMMON OPTIONS\n");
    print_roff_options(lam_common_options);
    printf(
        ".SH EXIT STATUS\n0 done, 1 failed, 2 usage or config, 75 stopped after a checkpoint (run again with \\-\\-resume).\n");
}

/* No command before this one begins with the same word. */
static bool first_of_family(const lam_command *const *commands, const lam_command *const *this) {
    size_t word = strcspn((*this)->name, " ");
    for (const lam_command *const *c = commands; c != this; c++)
        if (strcspn((*c)->name, " ") == word && !strncmp((*c)->name, (*this)->name, word)) return false;
    return true;
}

void lam_cli_print_completion(const lam_command *const *commands) {
    printf(
        "_lamella() {\n  local word=${COMP_WORDS[COMP_CWORD]} options\n  if [ \"$COMP_CWORD\" = 1 ]; then\n"
        "    COMPREPLY=($(compgen -W \"");
    for (const lam_command *const *c = commands; *c; c++)
        if (first_of_family(commands, c)) printf("%.*s ", (int)strcspn((*c)->name, " "), (*c)->name);
    printf("\" -- \"$word\"))\n    return\n  fi\n  case ${COMP_WORDS[1]} in\n");
    for (const lam_command *const *c = commands; *c; c++) {
        size_t word = strcspn((*c)->name, " ");
        if (!first_of_family(commands, c)) continue;
        printf("    %.*s) options=\"", (int)word, (*c)->name);
        /* Of a family: what may stand second, and the options of all. */
        for (const lam_command *const *one = c; *one; one++) {
            if (strncmp((*one)->name, (*c)->name, word) != 0 || strcspn((*one)->name, " ") != word) continue;
            for (const lam_option *o = (*one)->options; o && o->name; o++) printf("--%s ", o->name);
        }
        printf("\"");
        if ((*c)->name[word]) {
            printf("\n      [ \"$COMP_CWORD\" = 2 ] && COMPREPLY=($(compgen -W \"");
            for (const lam_command *const *one = c; *one; one++)
                if (!strncmp((*one)->name, (*c)->name, word + 1)) printf("%s ", (*one)->name + word + 1);
            printf("\" -- \"$word\")) && return");
        }
        printf(" ;;\n");
    }
    printf("  esac\n  case $word in\n    -*) COMPREPLY=($(compgen -W \"$options");
    for (const lam_option *o = lam_common_options; o->name; o++) printf(" --%s", o->name);
    printf(
        "\" -- \"$word\")) ;;\n    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n  esac\n}\ncomplete -o filenames -F _lamella lamella\n");
}
