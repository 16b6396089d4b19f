/* What the bindings are made from. LIBXL_API_VERSION is given by build.rs. */
#include <stdio.h>

#include <xentoollog.h>
#include <xenstore.h>
#include <xenctrl.h>
#include <xenguest.h>
#include <libxl.h>
#include <libxl_event.h>
#include <libxl_utils.h>
#include <libxl_uuid.h>
#include <libxlutil.h>
