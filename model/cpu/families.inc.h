/* Every family that touches activations; included once a storage type. */
#include "model/cpu/norm.inc.h"
#include "model/cpu/attention.inc.h"
#include "model/cpu/elementwise.inc.h"
#include "model/cpu/loss.inc.h"
#include "model/cpu/channels.inc.h"
#include "model/cpu/parallel.inc.h"
#include "model/cpu/partial.inc.h"
#include "model/cpu/tokens.inc.h"
