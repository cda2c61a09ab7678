/* JPEG 2000 (ISO 15444-1), files (.jp2) and bare codestreams (.j2k), through OpenJPEG. */
#include <openjpeg.h>
#include <stdio.h>
#include <string.h>

#include "data/image.h"

enum { MOST_RATIO = 20000 };

typedef struct source {
    const char *bytes;
    size_t size, at;
    char message[200];
} source;

static OPJ_SIZE_T on_read(void *to, OPJ_SIZE_T size, void *user) {
    source *s = user;
    size_t left = s->size - s->at, take = size < left ? size : left;
    if (take == 0) return (OPJ_SIZE_T)-1;
    memcpy(to, s->bytes + s->at, take);
    s->at += take;
    return take;
}

static OPJ_OFF_T on_skip(OPJ_OFF_T size, void *user) {
    source *s = user;
    if (size < 0 || (uint64_t)size > s->size - s->at) return -1;
    s->at += (size_t)size;
    return size;
}

static OPJ_BOOL on_seek(OPJ_OFF_T to, void *user) {
    source *s = user;
    if (to < 0 || (uint64_t)to > s->size) return OPJ_FALSE;
    s->at = (size_t)to;
    return OPJ_TRUE;
}

static void on_error(const char *message, void *user) {
    source *s = user;
    if (s->message[0] != 0) return;
    snprintf(s->message, sizeof s->message, "%s", message);
    s->message[strcspn(s->message, "\n")] = 0;
}

static void on_message(const char *message, void *user) {
    (void)message;
    (void)user;
}

static lam_status check_components(const opj_image_t *image, lam_image *out, const char *name) {
    LAM_REQUIRE(image->numcomps >= 1, LAM_ERROR_FORMAT, "%s: damaged JPEG 2000: no components", name);
    const opj_image_comp_t *first = &image->comps[0];
    for (OPJ_UINT32 c = 0; c < image->numcomps; c++) {
        const opj_image_comp_t *k = &image->comps[c];
        LAM_REQUIRE(!k->sgnd && k->prec >= 1 && k->prec <= 16, LAM_ERROR_FORMAT,
                    "%s: %s pixels of %u bits; unsigned ones of at most 16 bits can be packed: convert it",
                    name, k->sgnd ? "signed" : "unsigned", k->prec);
        LAM_REQUIRE(k->w == first->w && k->h == first->h, LAM_ERROR_FORMAT,
                    "%s: components of different sizes (%u x %u and %u x %u): convert it", name, first->h,
                    first->w, k->h, k->w);
        if (k->alpha != 0)
            out->alpha_dropped = true;
        else
            out->channels++;
        if (k->prec > 8) out->type = LAM_PIXEL_U16;
    }
    out->height = first->h;
    out->width = first->w;
    return LAM_OK;
}

static lam_status decode(opj_codec_t *codec, opj_stream_t *stream, opj_image_t **image, const source *s,
                         lam_image *out, const char *name) {
    opj_dparameters_t parameters;
    opj_set_default_decoder_parameters(&parameters);
    LAM_REQUIRE(opj_setup_decoder(codec, &parameters) && opj_read_header(stream, codec, image),
                LAM_ERROR_FORMAT, "%s: damaged JPEG 2000: %s", name,
                s->message[0] ? s->message : "its header cannot be read");
    out->type = LAM_PIXEL_U8;
    /* Before decoding takes memory: what the header claims. */
    LAM_TRY(check_components(*image, out, name));
    LAM_TRY(lam_image_reserve(out, s->size, MOST_RATIO, name));
    lam_image_free(out);
    LAM_REQUIRE(opj_decode(codec, stream, *image) && opj_end_decompress(codec, stream), LAM_ERROR_FORMAT,
                "%s: damaged JPEG 2000: %s", name, s->message[0] ? s->message : "it is cut short");
    out->type = LAM_PIXEL_U8;
    LAM_TRY(check_components(*image, out, name));
    LAM_TRY(lam_image_reserve(out, s->size, MOST_RATIO, name));
    int64_t plane = out->height * out->width, channel = 0;
    for (OPJ_UINT32 c = 0; c < (*image)->numcomps; c++) {
        const opj_image_comp_t *k = &(*image)->comps[c];
        if (k->alpha != 0) continue;
        LAM_REQUIRE(k->data != NULL, LAM_ERROR_FORMAT, "%s: damaged JPEG 2000: component %u has no pixels",
                    name, c);
        int32_t most = (1 << k->prec) - 1;
        for (int64_t i = 0; i < plane; i++) {
            int32_t v = k->data[i] < 0 ? 0 : k->data[i] > most ? most : k->data[i];
            if (out->type == LAM_PIXEL_U8)
                ((uint8_t *)out->pixels)[channel * plane + i] = (uint8_t)v;
            else
                ((uint16_t *)out->pixels)[channel * plane + i] = (uint16_t)v;
        }
        channel++;
    }
    return LAM_OK;
}

lam_status lam_jpeg2000_parse(lam_image *out, const char *bytes, size_t size, const char *name) {
    source s = {.bytes = bytes, .size = size};
    opj_image_t *image = NULL;
    *out = (lam_image){0};
    opj_codec_t *codec = opj_create_decompress(size > 0 && bytes[0] == 0 ? OPJ_CODEC_JP2 : OPJ_CODEC_J2K);
    opj_stream_t *stream = opj_stream_create(1 << 16, OPJ_TRUE);
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(codec != NULL && stream != NULL, done, LAM_ERROR_MEMORY,
                     "%s: out of memory for JPEG 2000", name);
    opj_set_error_handler(codec, on_error, &s);
    opj_set_warning_handler(codec, on_message, NULL);
    opj_set_info_handler(codec, on_message, NULL);
    opj_stream_set_user_data(stream, &s, NULL);
    opj_stream_set_user_data_length(stream, size);
    opj_stream_set_read_function(stream, on_read);
    opj_stream_set_skip_function(stream, on_skip);
    opj_stream_set_seek_function(stream, on_seek);
    status = decode(codec, stream, &image, &s, out, name);
done:
    opj_image_destroy(image);
    if (stream != NULL) opj_stream_destroy(stream);
    if (codec != NULL) opj_destroy_codec(codec);
    if (status != LAM_OK) lam_image_free(out);
    return status;
}
