// Linux's <linux/kvm.h> with the sizes that the kernel means. Include this, never that.
//
// The headers of Linux 6.1 to 6.5 declare flexible arrays in a way that makes the structures before them 4 to
// 8 bytes longer in C++ than in C. The numbers of the calls hold those sizes, and the arrays would be read
// from behind their place: KVM_GET_SUPPORTED_CPUID, KVM_SET_MSRS, KVM_SET_GSI_ROUTING and others would say
// EINVAL.
#pragma once

#include <cstddef>
#include <linux/stddef.h>

#undef __DECLARE_FLEX_ARRAY
// The name is Linux's, and so is its definition for C++ since Linux 6.6.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming)
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]

#include <linux/kvm.h>

static_assert(sizeof(kvm_msr_list) == 4 && sizeof(kvm_cpuid2) == 8 && sizeof(kvm_msrs) == 8 &&
                  sizeof(kvm_irq_routing) == 8 && sizeof(kvm_xsave) == 4096 &&
                  offsetof(kvm_cpuid2, entries) == 8,
              "<linux/kvm.h> was included before this header");
