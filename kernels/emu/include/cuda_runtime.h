/* The emulation in place of the CUDA runtime's header. */
#include "kernels/emu/cuda_emu.h"
